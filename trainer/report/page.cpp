#include "trainer/report/page.h"

#include "trainer/data/utf8.h"

namespace switchyard {
namespace {

// Colours after Okabe and Ito: distinct for colour-blind readers, in light and dark.
constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --page: #ffffff; --text: #1d2126; --soft: #5c6570; --line: #e3e6ea; --card: #f6f7f9;
  --s0: #0072b2; --s1: #c44e00; --s2: #00805c; --s3: #a8497f; --s4: #8a6a00; --s5: #3a8fc7; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171b; --text: #e4e7eb; --soft: #98a2ae; --line: #2c3239; --card: #1c2026;
    --s0: #56b4e9; --s1: #ff8b3d; --s2: #2fc796; --s3: #e59bc4; --s4: #f0c84b; --s5: #9db4ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 28px 20px 60px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 26px; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 44px 0 2px; }
p { margin: 6px 0 14px; color: var(--soft); max-width: 52em; }
.notice { color: var(--text); border-left: 3px solid var(--s1); padding-left: 12px; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); gap: 10px; margin: 20px 0 8px; }
.facts div { background: var(--card); border-radius: 8px; padding: 10px 14px; min-width: 0; }
.facts span { display: block; color: var(--soft); font-size: 12.5px; }
.facts b { display: block; font-size: 18px; font-weight: 600; overflow-wrap: anywhere; }
.facts small { color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--width, 330px)), 1fr)); gap: 26px 28px; }
figure { margin: 0; min-width: 0; }
.wide { grid-column: 1 / -1; }
figcaption { font-size: 14px; margin-bottom: 8px; }
.unit { color: var(--soft); font-size: 12.5px; margin-left: 4px; }
.key { color: var(--text); font-size: 12.5px; margin-left: 14px; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px; border-radius: 2px; background: var(--c);
  margin-right: 6px; vertical-align: middle; }
.key.dot::before { width: 8px; height: 8px; border-radius: 50%; }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); }
.s3 { --c: var(--s3); } .s4 { --c: var(--s4); } .s5 { --c: var(--s5); }
.plot { position: relative; height: 190px; margin: 0 8px 24px 46px; }
.wide .plot { height: 320px; }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.plot path { fill: none; vector-effect: non-scaling-stroke; stroke: var(--c); stroke-linejoin: round; }
.plot path.grid { stroke: var(--line); stroke-width: 1; }
.plot path.faint { stroke-width: 1; opacity: .38; }
.plot path.line { stroke-width: 2; }
.plot path.dots { stroke-width: 8; stroke-linecap: round; }
.plot span { position: absolute; color: var(--soft); font-size: 12px; line-height: 1; white-space: nowrap; }
.plot .y { right: calc(100% + 7px); transform: translateY(-50%); }
.plot .x { top: calc(100% + 8px); transform: translateX(-50%); }
.plot i { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--soft); pointer-events: none; }
.plot output { position: absolute; top: 6px; padding: 4px 9px; border-radius: 6px; background: var(--card); color: var(--text);
  border: 1px solid var(--line); font-size: 12.5px; line-height: 1.45; white-space: pre; pointer-events: none; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 2px; font-size: 12.5px; }
th { font-weight: 400; color: var(--soft); text-align: right; padding: 2px 6px; white-space: nowrap; }
td { text-align: right; padding: 3px 7px; border-radius: 3px; }
.heat td { text-align: center; min-width: 34px; padding: 3px 4px; box-shadow: inset 0 0 0 1px var(--line); }
td.bar { width: 30%; min-width: 90px; }
td.bar i { display: block; height: 9px; border-radius: 3px; background: var(--s0); }
.picture { display: grid; grid-template-columns: auto 1fr; gap: 2px 7px; color: var(--soft); font-size: 12px; line-height: 1; }
.picture img { width: 100%; height: 100%; display: block; image-rendering: pixelated; outline: 1px solid var(--line); }
.picture div { display: flex; justify-content: space-between; }
.picture .down { flex-direction: column; text-align: right; }
.scale { display: inline-block; width: 150px; height: 10px; border-radius: 3px; margin: 0 8px; vertical-align: middle;
  border: 1px solid var(--line); }
pre { background: var(--card); border-radius: 8px; padding: 12px 16px; overflow-x: auto; font-size: 12.5px; line-height: 1.45;
  white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; margin-top: 44px; font-size: 18px; font-weight: 600; }
footer { color: var(--soft); font-size: 12.5px; margin-top: 48px; }
@media (max-width: 480px) { body { padding: 18px 12px 40px; } .wide .plot { height: 240px; } .key { margin-left: 8px; } }
)css";

// Under the pointer: the step, and each named curve's value nearest to it, read from what is drawn.
constexpr const char* kScript = R"js(
for (const plot of document.querySelectorAll('.plot')) {
  const [left, right, low, high] = plot.dataset.frame.split(' ').map(Number);
  const curves = [...plot.querySelectorAll('[data-name]')].map(path => ({
    name: path.dataset.name,
    points: path.getAttribute('d').match(/[ML][^MLh]+/g).map(p => p.slice(1).split(',').map(Number)) }));
  const rule = document.createElement('i'), tip = document.createElement('output');
  plot.addEventListener('pointermove', event => {
    const box = plot.getBoundingClientRect(), at = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const reached = curves.filter(c => c.points[0][0] - 20 < 1000 * at && 1000 * at < c.points.at(-1)[0] + 20);
    const near = reached.map(c => ({ name: c.name, point: c.points.reduce((best, p) =>
      Math.abs(p[0] - 1000 * at) < Math.abs(best[0] - 1000 * at) ? p : best) }));
    tip.textContent = 'step ' + Math.round(left + at * (right - left)) + near.map(n => '\n' + n.name + '  ' +
      Number((high - n.point[1] / 1000 * (high - low)).toPrecision(4))).join('');
    rule.style.left = 100 * at + '%';
    tip.style.cssText = at < 0.5 ? `left:calc(${100 * at}% + 10px)` : `right:calc(${100 - 100 * at}% + 10px)`;
    plot.append(rule, tip);
  });
  plot.addEventListener('pointerleave', () => { rule.remove(); tip.remove(); });
}
)js";

}  // namespace

std::string escaped(std::string_view text) {
  std::string html;
  for (const char c : to_utf8(text)) {
    switch (c) {
      case '&': html += "&amp;"; break;
      case '<': html += "&lt;"; break;
      case '>': html += "&gt;"; break;
      case '"': html += "&quot;"; break;
      case '\'': html += "&#39;"; break;
      default: html += c;
    }
  }
  return html;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t j = i; j < i + 3; ++j)
      group = group << 8 | (j < bytes.size() ? static_cast<uint8_t>(bytes[j]) : 0u);
    for (size_t j = 0; j < 4; ++j) text += i + j <= bytes.size() ? kDigits[group >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

std::string page(const std::string& title, const std::string& body) {
  std::string html = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
  html +=
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" + escaped(title);
  html += "</title>\n<style>";
  html += kStyle;
  html += "</style>\n</head>\n<body>\n" + body + "<script>";
  html += kScript;
  return html + "</script>\n</body>\n</html>\n";
}

}  // namespace switchyard
