#include "trainer/report/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "trainer/metrics/load_picture.h"
#include "trainer/report/page.h"

namespace switchyard {
namespace {

constexpr size_t kMostNumbers = 16;
constexpr double kShades = 8;  // an octave; finer ones are not seen, and take room

double rounded(double share) {
  return share > 0 ? std::exp2(std::round(std::log2(share) * kShades) / kShades) : 0;
}

std::string css(Color c) {
  return fmt::format("rgb({} {} {}/{:.2f})", c.red, c.green, c.blue, c.alpha / 255.0);
}

std::string image(const Image& image, const std::string& title, const std::string& style) {
  return fmt::format("<img style=\"{}\" alt=\"{}\" src=\"data:image/png;base64,{}\">", style, escaped(title),
                     base64(to_png(image)));
}

std::string figure(const std::string& title, const std::string& content) {
  return fmt::format("<figure><figcaption><b>{}</b></figcaption>{}</figure>\n", escaped(title), content);
}

std::string numbers(const std::vector<std::string>& labels, const Rows& rows, size_t columns) {
  std::string html = "<div class=\"scroll\"><table class=\"heat\"><tr><th></th>";
  for (size_t e = 0; e < columns; ++e) html += fmt::format("<th style=\"text-align:center\">{}</th>", e);
  for (size_t i = 0; i < rows.size(); ++i) {
    html += fmt::format("</tr>\n<tr><th>{}</th>", escaped(labels[i]));
    for (const double share : rows[i])
      html += fmt::format("<td style=\"background:{}\">{:.2f}</td>", css(load_color(share)), share);
  }
  return html + "</tr></table></div>";
}

std::string picture(const std::string& title, const std::vector<std::string>& labels, Rows rows,
                    size_t columns) {
  for (auto& row : rows) std::transform(row.begin(), row.end(), row.begin(), rounded);
  std::string names;
  for (const std::string& label : labels) names += concat("<span>", escaped(label), "</span>");
  return fmt::format(
      "<div class=\"picture\"><div class=\"down\" "
      "style=\"justify-content:space-around\">{}</div>{}<div></div>"
      "<div><span>expert 0</span><span>{}</span></div></div>",
      names, image(load_picture(rows, 1), title, fmt::format("height:{}px", 18 * rows.size())), columns - 1);
}

}  // namespace

std::string heat_table(const std::string& title, const std::vector<std::string>& labels, const Rows& rows) {
  size_t columns = 0;
  for (const auto& row : rows) columns = std::max(columns, row.size());
  if (columns == 0) return "";
  return figure(title, columns <= kMostNumbers ? numbers(labels, rows, columns)
                                               : picture(title, labels, rows, columns));
}

std::string heat_over_time(const std::string& title, const Rows& means, const std::string& first,
                           const std::string& last) {
  size_t experts = 0;
  for (const auto& mean : means) experts = std::max(experts, mean.size());
  if (experts == 0) return "";
  Image drawn(static_cast<int>(means.size()), static_cast<int>(experts));
  for (size_t x = 0; x < means.size(); ++x) {
    for (size_t e = 0; e < means[x].size(); ++e)
      drawn.at(static_cast<int>(x), static_cast<int>(e)) = load_color(rounded(means[x][e]));
  }
  const size_t height = std::clamp<size_t>(14 * experts, 56, 256);
  return figure(
      title,
      fmt::format("<div class=\"picture\"><div class=\"down\"><span>0</span><span>{}</span></div>{}"
                  "<div></div><div><span>{}</span><span>{}</span></div></div>",
                  experts - 1,
                  image(drawn, title + ": load of each expert over time", fmt::format("height:{}px", height)),
                  escaped(first), escaped(last)));
}

std::string heat_grid(size_t columns) {
  const size_t width = columns <= kMostNumbers ? 50 + 36 * columns : 330;
  return fmt::format("<div class=\"grid\" style=\"--width:{}px\">\n", width);
}

std::string heat_legend() {
  std::string colors;
  for (double octave = -2; octave <= 2; octave += 0.25)
    colors += concat(",", css(load_color(std::exp2(octave))));
  return fmt::format(
      "<p>A quarter of an even share or less <span class=\"scale\" style=\"background:linear-gradient(to "
      "right{})\"></span> four times as much or more; grey: none.</p>\n",
      colors);
}

}  // namespace switchyard
