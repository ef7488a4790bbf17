#!/usr/bin/env python3
"""One CORR+RECORDS training step on the CPU: PyTorch beside `records bench step`, in turns, in one run.

Needs torch (Debian's python3-torch or PyPI's torch) and a release build of records. PyTorch is tried contiguous and
channels_last, and the faster is taken. Prints a table; --require R ends with 1 where ours is below R times PyTorch's speed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError:
    sys.exit("error: torch is missing; install python3-torch (Debian) or torch (PyPI)")


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Encoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage, stride in enumerate([1, 2, 2, 2]):
            outputs = width << stage
            blocks = [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = outputs

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean((2, 3))


class Network(nn.Module):
    """ResNet-18 for CIFAR, names as in the reference's state_dict."""

    def __init__(self, width, classes):
        super().__init__()
        self.encoder = Encoder(width)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x):
        features = self.encoder(x)
        return self.fc(features), features


def pair_loss(logits, confidence):
    """One view's part: -sum over zero confidence of ln(|1-p| + eps), plus KL(c || p), mean over the batch."""
    log_p = F.log_softmax(logits, 1)
    wrong = (confidence == 0).float()
    negative = -(torch.log((1 - log_p.exp()).abs() + 1e-9) * wrong).sum(1)
    divergence = (torch.special.xlogy(confidence, confidence) - confidence * log_p).sum(1)
    return (negative + divergence).mean()


class Step:
    """A training step of CORR+RECORDS on fixed random views: the same work as `records bench step`."""

    def __init__(self, batch, width, channels_last):
        torch.manual_seed(1)
        classes, samples = 10, batch
        self.batch = batch
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = Network(width, classes).to(memory_format=self.format)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.02, momentum=0.9, weight_decay=1e-5)
        self.views = torch.randn(2 * batch, 3, 32, 32).contiguous(memory_format=self.format)
        self.candidates = (torch.rand(samples, classes) < 0.3).float()
        self.candidates[torch.arange(samples), torch.randint(classes, (samples,))] = 1
        self.confidence = self.candidates / self.candidates.sum(1, keepdim=True)
        self.mean_feature = torch.zeros(8 * width)

    def run(self):
        logits, features = self.network(self.views)
        weak, strong = logits[: self.batch], logits[self.batch :]
        loss = pair_loss(weak, self.confidence) + pair_loss(strong, self.confidence)
        with torch.no_grad():
            self.mean_feature = 0.9 * self.mean_feature + 0.1 * features.mean(0)
            prior = torch.log(F.softmax(self.network.fc(self.mean_feature), 0) + 1e-9)
            row = self.candidates * F.softmax(weak - prior, 1) * F.softmax(strong - prior, 1)
            row = (row / (row.sum(1, keepdim=True) + 1e-9)).sqrt()
            self.confidence = row / (row.sum(1, keepdim=True) + 1e-9)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def seconds(self, steps):
        times = []
        for _ in range(steps):
            started = time.perf_counter()
            self.run()
            times.append(time.perf_counter() - started)
        return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", default="target/release/records", help="our binary")
    parser.add_argument("--batch-size", type=int, default=32, help="samples; the network sees twice as many views")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of both; 0: all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn, of which the median counts")
    parser.add_argument("--require", type=float, help="least ratio of ours to PyTorch's images/s")
    parser.add_argument("--json", help="write the figures here")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    def ours():
        command = [arguments.records, "bench", "step", "--device", "cpu", "--json"]
        for name in ("batch_size", "width", "threads", "steps"):
            command += ["--" + name.replace("_", "-"), str(getattr(arguments, name))]
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            sys.exit(f"error: {arguments.records} is missing; build it with cargo build --release")
        except subprocess.CalledProcessError as error:
            sys.exit(f"error: {' '.join(command)}: {error.stderr.strip()}")
        return json.loads(done.stdout)["seconds_per_step_median"]

    settings = {}
    for name, channels_last in (("contiguous", False), ("channels_last", True)):
        step = Step(arguments.batch_size, arguments.width, channels_last)
        step.run()
        settings[name] = (step.seconds(arguments.steps), step)
    best = min(settings, key=lambda name: settings[name][0])
    twin = settings[best][1]

    theirs, own = [], []
    for _ in range(arguments.rounds):
        theirs.append(twin.seconds(arguments.steps))
        own.append(ours())
    images = 2 * arguments.batch_size
    ratios = [a / b for a, b in zip(theirs, own)]
    figures = {
        "batch_size": arguments.batch_size,
        "width": arguments.width,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torch_format": best,
        "torch_seconds": {name: seconds for name, (seconds, _) in settings.items()},
        "torch_images_per_second": images / statistics.median(theirs),
        "records_images_per_second": images / statistics.median(own),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }
    print(f"a step of {arguments.batch_size} samples, width {arguments.width}, {figures['threads']} threads, f32")
    for name, (seconds, _) in settings.items():
        print(f"  torch {torch.__version__} {name:<14} {1e3 * seconds:8.1f} ms  {images / seconds:7.1f} images/s")
    print(f"in {arguments.rounds} turns (medians):")
    print(f"  torch {best:<22} {1e3 * statistics.median(theirs):8.1f} ms  {figures['torch_images_per_second']:7.1f} images/s")
    print(f"  records                      {1e3 * statistics.median(own):8.1f} ms  {figures['records_images_per_second']:7.1f} images/s")
    print(f"  records / torch, turn by turn: {figures['ratio_median']:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)
            file.write("\n")
    if arguments.require and figures["ratio_median"] < arguments.require:
        sys.exit(f"error: {figures['ratio_median']:.3f} is below the required {arguments.require}")


main()
