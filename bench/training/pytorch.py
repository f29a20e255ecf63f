#!/usr/bin/env python3
"""The shared nets in plain PyTorch, as a Python user would write them: pytorch.py NET SECONDS prints samples a second.
The shapes are those of lighten/nn and of lighten/train/training_bench.cpp."""
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 10


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = None
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        inner = self.norm2(self.conv2(F.relu_(self.norm1(self.conv1(x)))))
        return F.relu(inner + (x if self.shortcut is None else self.shortcut(x)))


class ResNet8(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(BasicBlock(16, 16, 1), BasicBlock(16, 32, 2), BasicBlock(32, 64, 2))
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class VitBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.heads = width // 32
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, 32).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v)
        h = x + self.out(attended.transpose(1, 2).reshape(n, tokens, width))
        return h + self.down(F.gelu(self.up(self.norm2(h))))


class Vit(nn.Module):
    def __init__(self, width=96, patch=4, depth=4):
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, (28 // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*[VitBlock(width) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x):
        p = self.patches(x).flatten(2).transpose(1, 2)
        x = self.blocks(torch.cat([self.token.expand(len(p), -1, -1), p], 1) + self.positions)
        return self.head(self.norm(x[:, 0]))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES))


def conv3():
    layers, inputs = [], 1
    for outputs in (32, 64, 128):
        layers += [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 9, 256), nn.ReLU(), nn.Linear(256, CLASSES))


class Gcn(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 256, bias=False), nn.Linear(256, CLASSES, bias=False)
        self.b1, self.b2 = nn.Parameter(torch.zeros(256)), nn.Parameter(torch.zeros(CLASSES))

    def forward(self, a, x):
        h = F.relu(torch.sparse.mm(a, self.first(F.dropout(x, 0.5, self.training))) + self.b1)
        return torch.sparse.mm(a, self.second(F.dropout(h, 0.5, self.training))) + self.b2


class LoraLinear(nn.Module):
    def __init__(self, linear, rank=8, alpha=16):
        super().__init__()
        self.linear, self.scale = linear, alpha / rank
        self.a, self.b = nn.Parameter(torch.randn(rank, linear.in_features) * rank**-0.5), nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + self.scale * F.linear(F.linear(x, self.a), self.b)


def picture_step(net):
    batch, steps = 128, 4
    pixels = torch.randint(256, (steps * batch, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(steps * batch) % CLASSES
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)

    def epoch():
        for rows in torch.randperm(steps * batch).split(batch):
            x = (pixels[rows].float() / 255 - 0.5) / 0.3
            loss = F.cross_entropy(net(x), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # a loop that shows its loss and stops at NaN

    return epoch, steps * batch


def gcn_step():
    nodes, inputs = 5000, 384
    ends = torch.randint(nodes, (2, 50000))
    ends = ends[:, ends[0] != ends[1]]
    ends = torch.cat([ends, ends.flip(0), torch.arange(nodes).repeat(2, 1)], 1)
    a = torch.sparse_coo_tensor(ends, torch.ones(ends.shape[1]), (nodes, nodes)).coalesce()
    rows, columns = a.indices()
    degree = torch.zeros(nodes).index_add_(0, rows, torch.ones(len(rows)))
    a = torch.sparse_coo_tensor(a.indices(), (degree[rows] * degree[columns]) ** -0.5, (nodes, nodes)).to_sparse_csr()
    x, y, net = torch.randn(nodes, inputs), torch.arange(nodes) % CLASSES, Gcn(inputs)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, weight_decay=5e-4)

    def step():
        loss = F.cross_entropy(net(a, x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step, nodes


def bert_step():
    from transformers import BertConfig, BertModel

    batch, tokens = 16, 64
    bert = BertModel(BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, hidden_dropout_prob=0,
                                attention_probs_dropout_prob=0), add_pooling_layer=False)  # fmt: skip
    bert.requires_grad_(False)
    for layer in bert.encoder.layer:
        attention = layer.attention.self
        attention.query, attention.value = LoraLinear(attention.query), LoraLinear(attention.value)
    head = nn.Linear(384, CLASSES)
    ids, labels = torch.randint(30522, (3 * batch, tokens)), torch.arange(3 * batch) % CLASSES
    learnt = [p for p in [*bert.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, 1e-4, weight_decay=5e-4)
    bert.train()

    def epoch():
        for rows in torch.randperm(3 * batch).split(batch):
            loss = F.cross_entropy(head(bert(ids[rows]).last_hidden_state.mean(1)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return epoch, 3 * batch


def main():
    torch.manual_seed(0)
    nets = {"mlp": mlp, "conv3": conv3, "resnet8": ResNet8, "vit": Vit}
    name, seconds = sys.argv[1], float(sys.argv[2])
    run, samples = picture_step(nets[name]()) if name in nets else gcn_step() if name == "gcn" else bert_step()
    run()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        run()
        count += samples
    print(count / (time.perf_counter() - start))


main()
