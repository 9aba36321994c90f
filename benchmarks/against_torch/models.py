"""The models of bench_train_step in PyTorch: the same shapes, mathematics and counts of FLOPs.

scaled_dot_product_attention, RMSNorm and rotation written out (for torch.compile to fuse), float32 router, experts by
torch._grouped_mm over tokens sorted by expert, cross-entropy of float32 logits. With several ranks each holds its share
of the experts, and rows travel by torch.distributed.all_to_all_single.
"""
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

MODELS = {  # vocab, hidden, layers, heads, kv heads, dense ffn, (experts, top-k, ffn), sequence, micro batch, global batch
    "dense-124m": (50304, 768, 12, 12, 12, 2048, None, 1024, 32, 64),
    "coarse": (32768, 1024, 8, 16, 4, 0, (8, 2, 3584), 2048, 8, 16),
    "fine": (32768, 1024, 8, 16, 4, 0, (64, 8, 512), 2048, 8, 16),
    "small-dense": (4096, 512, 4, 8, 4, 1536, None, 256, 8, 8),
    "small-moe8": (4096, 512, 4, 8, 4, 0, (8, 2, 768), 256, 8, 8),
    "small-moe64": (4096, 512, 4, 8, 4, 0, (64, 8, 192), 256, 8, 8),
}
HEAD = 64


def norm(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)


def rotated(x, cos, sin):
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, d, heads, kv):
        super().__init__()
        self.heads, self.kv = heads, kv
        self.qkv = nn.Linear(d, (heads + 2 * kv) * HEAD, bias=False)
        self.out = nn.Linear(heads * HEAD, d, bias=False)
        self.q_norm, self.k_norm = nn.Parameter(torch.ones(HEAD)), nn.Parameter(torch.ones(HEAD))

    def forward(self, x, cos, sin):
        b, s, _ = x.shape
        q, k, v = self.qkv(x).view(b, s, -1, HEAD).split([self.heads, self.kv, self.kv], 2)
        q = rotated(norm(q, self.q_norm).transpose(1, 2), cos, sin)
        k = rotated(norm(k, self.k_norm).transpose(1, 2), cos, sin)
        y = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, enable_gqa=self.heads != self.kv)
        return self.out(y.transpose(1, 2).reshape(b, s, -1))


class Dense(nn.Module):
    def __init__(self, d, ffn):
        super().__init__()
        self.up, self.down = nn.Linear(d, 2 * ffn, bias=False), nn.Linear(ffn, d, bias=False)

    def forward(self, x):
        gate, up = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up), 0.0


class Exchange(torch.autograd.Function):
    """Rows to and from each rank; backward is the way back."""

    @staticmethod
    def forward(ctx, x, send, recv):
        ctx.send, ctx.recv = send, recv
        y = x.new_empty(sum(recv), x.shape[1])
        dist.all_to_all_single(y, x.contiguous(), recv, send)
        return y

    @staticmethod
    def backward(ctx, dy):
        dx = dy.new_empty(sum(ctx.send), dy.shape[1])
        dist.all_to_all_single(dx, dy.contiguous(), ctx.send, ctx.recv)
        return dx, None, None


@torch.compiler.disable
def exchange_counts(counts, ranks):
    """Rows of each (source rank, local expert) that come here, and the sizes of both ways."""
    counts = counts.long()
    received = torch.empty_like(counts)
    dist.all_to_all_single(received, counts)
    return received.view(ranks, -1), counts.view(ranks, -1).sum(1).tolist(), received.view(ranks, -1).sum(1).tolist()


@torch.compiler.disable
def exchange(x, send, recv):
    return Exchange.apply(x, send, recv)


class Mixture(nn.Module):
    def __init__(self, d, experts, top_k, ffn, routing, ranks=1):
        super().__init__()
        self.experts, self.top_k, self.routing, self.ranks = experts, top_k, routing, ranks
        self.router = nn.Linear(d, experts, bias=False)
        self.up = nn.Parameter(torch.empty(experts // ranks, 2 * ffn, d))
        self.down = nn.Parameter(torch.empty(experts // ranks, d, ffn))
        self.register_buffer("bias", -0.4 * torch.log(torch.arange(experts) + 1.0) / experts)

    def choose(self, p):
        tokens = p.shape[0]
        if self.routing == "balanced":  # experts in turn
            pairs = torch.arange(tokens * self.top_k, device=p.device).view(tokens, -1) % self.experts
            return p.gather(1, pairs), pairs
        chosen = torch.topk(p + self.bias if self.routing == "skewed" else p, self.top_k).indices
        return p.gather(1, chosen), chosen

    def run_experts(self, rows, counts):
        offsets = counts.cumsum(0).to(torch.int32)
        gate, up = torch._grouped_mm(rows, self.up.transpose(1, 2), offs=offsets).chunk(2, -1)
        return torch._grouped_mm(F.silu(gate) * up, self.down.transpose(1, 2), offs=offsets)

    def run_remote_experts(self, rows, counts):
        received, send, recv = exchange_counts(counts, self.ranks)
        arrived = exchange(rows, send, recv)  # by source rank, then by expert
        expert = torch.arange(received.shape[1]).repeat(self.ranks).repeat_interleave(received.view(-1))
        order = torch.argsort(expert, stable=True)
        y = self.run_experts(arrived[order], received.sum(0))
        return exchange(torch.empty_like(y).index_copy(0, order, y), recv, send)

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        p = torch.softmax(F.linear(flat.float(), self.router.weight.float()), -1)
        weight, chosen = self.choose(p)
        weight = weight / weight.sum(-1, keepdim=True)
        order = torch.argsort(chosen.reshape(-1), stable=True)
        counts = torch.zeros(self.experts, device=x.device, dtype=torch.float32).scatter_add_(
            0, chosen.reshape(-1), torch.ones_like(chosen.reshape(-1), dtype=torch.float32))
        rows = flat[order // self.top_k]
        y = self.run_experts(rows, counts) if self.ranks == 1 else self.run_remote_experts(rows, counts)
        back = torch.empty_like(y).index_copy(0, order, y).view(-1, self.top_k, flat.shape[1])
        y = (back * weight.to(y.dtype).unsqueeze(-1)).sum(1)
        coeff = 0 if self.routing == "skewed" else 1e-2  # skewed: nothing pulls the loads even again
        balance = coeff * self.experts / self.top_k * (p.mean(0) * counts / flat.shape[0]).sum()
        return y.view_as(x), balance


class Layer(nn.Module):
    def __init__(self, d, heads, kv, feed_forward):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))
        self.attention, self.feed_forward = Attention(d, heads, kv), feed_forward

    def forward(self, x, cos, sin):
        x = x + self.attention(norm(x, self.first), cos, sin)
        y, balance = self.feed_forward(norm(x, self.second))
        return x + y, balance


class Model(nn.Module):
    def __init__(self, name, routing, ranks=1, rank=0):
        super().__init__()
        vocab, d, layers, heads, kv, ffn, moe, seq, _, _ = MODELS[name]
        self.embedding, self.head = nn.Embedding(vocab, d), nn.Linear(d, vocab, bias=False)
        self.first_expert = moe[0] // ranks * rank if moe else 0
        make = (lambda: Mixture(d, *moe, routing, ranks)) if moe else (lambda: Dense(d, ffn))
        self.layers = nn.ModuleList(Layer(d, heads, kv, make()) for _ in range(layers))
        self.final = nn.Parameter(torch.ones(d))
        angle = torch.outer(torch.arange(seq).float(), 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids, targets):
        x, balance = self.embedding(ids), 0.0
        for layer in self.layers:
            x, extra = layer(x, self.cos, self.sin)
            balance = balance + extra
        logits = self.head(norm(x, self.final)).float()
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
        return loss + balance, loss


def flops_per_token(name):
    vocab, d, layers, heads, kv, ffn, moe, seq, _, _ = MODELS[name]
    feed_forward = d * (moe[0] + 3 * moe[1] * moe[2]) if moe else 3 * d * ffn
    return 6 * (layers * (d * HEAD * (2 * heads + 2 * kv) + feed_forward) + d * vocab + layers * heads * HEAD * seq)
