"""CIFAR ResNet-18, WideResNet-28 and one training step of CORR (+RECORDS, +mixup) in plain PyTorch.

The twin of `records`' own step: the same network under the same state_dict names, the same pair loss, moving mean
feature, class prior, debiased confidence update and SGD, in whichever precision it is asked for. In float64 it is the
measure the engine is held against (replay_check.py); in float32 it is what the engine is timed against (bench_step.py).

Notation: B pairs a step (2B rows), N training samples, K classes, p = softmax(z), c a confidence row, s a candidate row.
"""

import json
import struct

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

EPSILON = 1e-9


# ---------------------------------------------------------------------------------------------- the network


class BasicBlock(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut(x))."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x):
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x), inplace=True)


class Encoder(nn.Module):
    """Images [R,3,H,W] to pooled features [R,8*width]."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage in range(4):
            out_channels = width << stage
            first = BasicBlock(channels, out_channels, 1 if stage == 0 else 2)
            second = BasicBlock(out_channels, out_channels, 1)
            setattr(self, "layer%d" % (stage + 1), nn.Sequential(first, second))
            channels = out_channels
        self.features = channels

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(2, 3))


class ResNet18(nn.Module):
    """Images [R,3,H,W] to (logits [R,K], features [R,8*width])."""

    def __init__(self, width=64, classes=10):
        super().__init__()
        self.encoder = Encoder(width)
        self.fc = nn.Linear(self.encoder.features, classes)

    def forward(self, x):
        features = self.encoder(x)
        return self.fc(features), features


class WideBlock(nn.Module):
    """o = relu(bn1 x), y = conv2(relu(bn2(conv1 o))) + (x, or a 1x1 convolution of o where the widths differ)."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.convShortcut = None
        if in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x):
        o = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(o)
        return self.conv2(F.relu(self.bn2(self.conv1(o)), inplace=True)) + shortcut


class WideEncoder(nn.Module):
    """Images [R,3,H,W] to pooled features [R,4*width]: a stem of 16 channels, three groups of four blocks."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        blocks, channels = [], 16
        for group in range(3):
            for number in range(4):
                stride = 2 if group > 0 and number == 0 else 1
                blocks.append(WideBlock(channels, width << group, stride))
                channels = width << group
        self.blocks = nn.Sequential(*blocks)
        self.bn1 = nn.BatchNorm2d(channels)
        self.features = channels

    def forward(self, x):
        return F.relu(self.bn1(self.blocks(self.conv1(x))), inplace=True).mean(dim=(2, 3))


class WideResNet28(ResNet18):
    """WideResNet-28-k with width = 16 k channels in the first group; for timing, its tensors have other names."""

    def __init__(self, width=32, classes=10):
        nn.Module.__init__(self)
        self.encoder = WideEncoder(width)
        self.fc = nn.Linear(self.encoder.features, classes)


def he_initialise(model, seed):
    """Convolutions normal(0, sqrt(2 / (Cout kh kw))), drawn by NumPy so that every PyTorch gets the same numbers;
    batchnorm 1 and 0; the classifier uniform in +-1/sqrt(fan in)."""
    generator = np.random.RandomState(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shape = tuple(parameter.shape)
            if len(shape) == 4:
                deviation = (2.0 / (shape[0] * shape[2] * shape[3])) ** 0.5
                values = generator.normal(0.0, deviation, shape)
            elif name.startswith("fc."):
                bound = model.fc.in_features ** -0.5
                values = generator.uniform(-bound, bound, shape)
            else:
                values = np.full(shape, 1.0 if name.endswith("weight") else 0.0)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))


# ---------------------------------------------------------------------------------- CORR, RECORDS, one step


def corr_loss(logits_weak, logits_strong, confidence):
    """1/B sum over pairs and views of { -sum_{k: c_k = 0} ln(|1 - p_k| + eps) + KL(c || p) }."""
    negative = (confidence == 0).to(confidence.dtype)
    entropy = torch.xlogy(confidence, confidence).sum()
    total = 0.0
    for logits in (logits_weak, logits_strong):
        log_p = F.log_softmax(logits, dim=1)
        p = F.softmax(logits, dim=1)
        total = total - (negative * torch.log((1.0 - p).abs() + EPSILON)).sum()
        total = total + entropy - (confidence * log_p).sum()
    return total / confidence.shape[0]


def corr_confidence(logits_weak, logits_strong, confidence):
    """New rows of CORR: sqrt(p^w p^s) over the classes whose confidence is not 0, normalised."""
    product = F.softmax(logits_weak, dim=1) * F.softmax(logits_strong, dim=1)
    rows = torch.sqrt(product * (confidence > 0))
    return rows / (rows.sum(dim=1, keepdim=True) + EPSILON)


def records_confidence(logits_weak, logits_strong, candidates, prior):
    """New rows of RECORDS: q = softmax(z - ln(prior + eps)) of both views over the candidate set, normalised, then the
    square root, normalised."""
    shift = torch.log(prior + EPSILON)
    product = F.softmax(logits_weak - shift, dim=1) * F.softmax(logits_strong - shift, dim=1) * candidates
    rows = torch.sqrt(product / (product.sum(dim=1, keepdim=True) + EPSILON))
    return rows / (rows.sum(dim=1, keepdim=True) + EPSILON)


class Trainer:
    """The state of a run and its step.

    confidence [N,K] and candidates [N,K] are arrays or tensors; everything is computed in `dtype` and images are kept in
    `memory_format`. `debias` is "none" or "records"; `prior_momentum` is the m of the mean feature. `autocast` runs the network in bf16
    where PyTorch's autocast does.
    """

    def __init__(self, model, candidates, confidence, lr, momentum=0.9, weight_decay=0.0, debias="records",
                 prior_momentum=0.9, dtype=torch.float32, memory_format=torch.contiguous_format, autocast=False):
        self.autocast = autocast
        self.dtype, self.memory_format = dtype, memory_format
        self.model = model.to(dtype=dtype).to(memory_format=memory_format).train()
        self.candidates = torch.as_tensor(candidates).to(dtype)
        self.confidence = torch.as_tensor(confidence).to(dtype).clone()
        self.debias, self.prior_momentum = debias, prior_momentum
        self.mean_feature = torch.zeros(model.encoder.features, dtype=dtype)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
        self.logits_weak = self.logits_strong = None

    def images(self, pair):
        """The 2B rows [2B,3,H,W] of a (weak, strong) pair of [B,3,H,W], as `step` takes them."""
        rows = torch.cat([torch.as_tensor(view) for view in pair]).to(self.dtype)
        return rows.contiguous(memory_format=self.memory_format)

    def step(self, images, index, update, mixup=None):
        """One step on `images` [2B,3,H,W] and `index` [B] (distinct samples); returns the loss as a number.

        Weak and strong rows go through one forward pass, so that batchnorm sees them together. The loss reads the
        confidence rows from before the step; the prior reads the classifier from before SGD. With `mixup`, a weight and
        a permutation of the samples, the mixed rows follow in the same forward pass, and their loss is added.
        """
        pairs = index.shape[0]
        old_rows = self.confidence[index]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            if mixup is not None:
                weight, permutation = mixup
                partners = torch.cat([permutation, permutation + pairs])
                images = torch.cat([images, weight * images + (1 - weight) * images[partners]])
            logits, features = self.model(images)
        logits, features = logits.to(self.dtype), features.to(self.dtype)
        logits_weak, logits_strong = logits[:pairs], logits[pairs:2 * pairs]
        loss = corr_loss(logits_weak, logits_strong, old_rows)
        if mixup is not None and update:
            mixed_rows = weight * old_rows + (1 - weight) * old_rows[permutation]
            loss = loss + corr_loss(logits[2 * pairs:3 * pairs], logits[3 * pairs:], mixed_rows)
        with torch.no_grad():
            self.logits_weak, self.logits_strong = logits_weak.detach(), logits_strong.detach()
            if self.debias == "records":
                m = self.prior_momentum
                batch_mean = ((features[:pairs] + features[pairs:2 * pairs]) / 2).mean(dim=0)
                self.mean_feature = m * self.mean_feature + (1 - m) * batch_mean
            if update:
                if self.debias == "records":
                    prior = F.softmax(self.model.fc(self.mean_feature), dim=0)
                    rows = records_confidence(
                        self.logits_weak, self.logits_strong, self.candidates[index], prior)
                else:
                    rows = corr_confidence(self.logits_weak, self.logits_strong, old_rows)
                self.confidence[index] = rows
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def state(self):
        """What `records replay` writes, beside `loss`, as NumPy arrays: logits and gradients of the last step,
        parameters, buffers, momentum, confidence, feat_mean."""
        state = {"logits.weak": self.logits_weak, "logits.strong": self.logits_strong, "confidence": self.confidence}
        if self.debias == "records":
            state["feat_mean"] = self.mean_feature
        state.update(self.model.state_dict())
        for name, parameter in self.model.named_parameters():
            state["grad." + name] = parameter.grad
            state["momentum." + name] = self.optimizer.state[parameter]["momentum_buffer"]
        return {name: np.ascontiguousarray(value.detach().numpy()) for name, value in state.items()}


# ------------------------------------------------------------------------------------------ safetensors files

_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}


def read_safetensors(path):
    """(tensors as a dict of NumPy arrays, metadata as a dict of strings). ValueError for a file that is not whole."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8:8 + length].decode("utf-8"))
        body = memoryview(data)[8 + length:]
        metadata = header.pop("__metadata__", None) or {}
        tensors = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            if not 0 <= start <= end <= len(body):
                raise ValueError("tensor %r ends beyond the file" % name)
            values = np.frombuffer(body[start:end], dtype=np.dtype(_TYPES[entry["dtype"]]))
            tensors[name] = values.reshape(entry["shape"]).copy()
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError("%s: not a whole safetensors file (%s)" % (path, error))
    return tensors, metadata


def write_safetensors(path, tensors, metadata=None):
    """Writes arrays and metadata strings; wide types come first so that every tensor is aligned to its type."""
    header = {"__metadata__": dict(metadata)} if metadata else {}
    arrays = {name: np.asarray(value) for name, value in tensors.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    offset = 0
    for name in order:
        array = arrays[name]
        end = offset + array.nbytes
        kind = _NAMES[array.dtype.newbyteorder("<")]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            array = arrays[name]
            file.write(array.astype(array.dtype.newbyteorder("<")).tobytes(order="C"))
