#!/usr/bin/env python3
"""Times one training step of CORR+RECORDS on a GPU in PyTorch: eager and compiled, f32 (TF32) and bf16 autocast.

The step is twin.py's without the read-back of the loss, so that nothing waits for the GPU; images are resident. Every setting
gets a warm-up, then the median over rounds of several steps between two events. With `--epoch` also whole epochs, whose views
Pillow makes in the processes of a DataLoader (epochs.py), as the reference's trainer does. `--json` prints one line.

Exit status: 0; 2 if PyTorch or a GPU is missing.
"""

import argparse
import json
import os
import statistics
import sys
import time


def stop(message):
    """Ends with one line and exit status 2."""
    print("bench_gpu: " + message, file=sys.stderr)
    raise SystemExit(2)


def parse_arguments():
    parser = argparse.ArgumentParser(description="time a training step on a GPU in PyTorch")
    parser.add_argument("--batch-size", type=int, default=256, help="pairs a step, two images each (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds, of which the median counts (%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps a round (%(default)s)")
    parser.add_argument("--epoch", action="store_true", help="also time epochs with views made by Pillow")
    parser.add_argument("--samples", type=int, default=12400, help="training images of an epoch (%(default)s)")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 16),
                        help="processes that make views (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    arguments = parser.parse_args()
    for name in ("batch_size", "width", "rounds", "steps", "samples", "workers"):
        if getattr(arguments, name) < 1:
            parser.error("--%s must be at least 1" % name.replace("_", "-"))
    return arguments


class GpuStep:
    """A step of CORR+RECORDS whose tensors all lie on the GPU."""

    def __init__(self, torch, twin, a, autocast, compiled):
        self.torch, self.twin, self.autocast = torch, twin, autocast
        generator = torch.Generator().manual_seed(0)
        classes, samples = 10, max(2048, a.batch_size, a.samples if a.epoch else 0)
        candidates = torch.rand(samples, classes, generator=generator) < 0.3
        candidates[torch.arange(samples), torch.arange(samples) % classes] = True
        model = twin.ResNet18(a.width, classes)
        twin.he_initialise(model, 0)
        self.model = model.cuda().to(memory_format=torch.channels_last).train()
        self.candidates = candidates.float().cuda()
        self.confidence = self.candidates / self.candidates.sum(dim=1, keepdim=True)
        self.mean_feature = torch.zeros(model.encoder.features, device="cuda")
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3, fused=True)
        images = torch.randn(2 * a.batch_size, 3, 32, 32, generator=generator)
        self.images = images.cuda().contiguous(memory_format=torch.channels_last)
        self.index = torch.randperm(samples, generator=generator)[:a.batch_size].cuda()
        self.forward = torch.compile(self.model, mode="max-autotune") if compiled else self.model

    def step(self, images=None, index=None):
        torch, twin = self.torch, self.twin
        images, index = self.images if images is None else images, self.index if index is None else index
        with torch.autocast("cuda", torch.bfloat16, enabled=self.autocast):
            logits, features = self.forward(images)
        logits, features = logits.float(), features.float()
        pairs = index.shape[0]
        weak, strong = logits[:pairs], logits[pairs:]
        loss = twin.corr_loss(weak, strong, self.confidence[index])
        with torch.no_grad():
            batch_mean = ((features[:pairs] + features[pairs:]) / 2).mean(dim=0)
            self.mean_feature.mul_(0.9).add_(batch_mean, alpha=0.1)
            prior = torch.softmax(self.model.fc(self.mean_feature), dim=0)
            rows = twin.records_confidence(weak.detach(), strong.detach(), self.candidates[index], prior)
            self.confidence[index] = rows
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def seconds(self, rounds, steps):
        """The median seconds a step, and the least and most of a round."""
        torch = self.torch
        for _ in range(5):
            self.step()
        times = []
        for _ in range(rounds):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(steps):
                self.step()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3 / steps)
        return statistics.median(times), min(times), max(times)


class Pairs:
    """A weak and a strong view of made-up images, normalised, with the image's number."""

    def __init__(self, epochs, count):
        import numpy
        from PIL import Image

        pixels = numpy.random.RandomState(0).randint(0, 256, (count, 32, 32, 3), dtype=numpy.uint8)
        self.epochs, self.images = epochs, [Image.fromarray(image) for image in pixels]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        image = self.images[number]
        views = [self.epochs.weak_view(image), self.epochs.strong_view(image)]
        return self.epochs.normalised(views), number


def epoch_seconds(torch, step, a):
    """The median seconds of three epochs, end to end, after one that starts the processes."""
    import epochs

    loader = torch.utils.data.DataLoader(Pairs(epochs, a.samples), a.batch_size, shuffle=True, drop_last=True,
                                         num_workers=a.workers, persistent_workers=True, pin_memory=True)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        for views, index in loader:
            # All weak views, then all strong ones.
            images = views.cuda(non_blocking=True).transpose(0, 1).flatten(0, 1)
            step.step(images.contiguous(memory_format=torch.channels_last), index.cuda(non_blocking=True))
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main():
    a = parse_arguments()
    try:
        import torch
        import twin
    except ImportError as error:
        stop("%s; PyTorch is needed: `pip install torch`" % error)
    if not torch.cuda.is_available():
        stop("PyTorch sees no GPU")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    settings = []
    for precision, compiled in (("f32 (TF32)", False), ("bf16", False), ("bf16", True)):
        name = "%s, %s" % (precision, "compiled" if compiled else "eager")
        try:
            median, least, most = GpuStep(torch, twin, a, precision == "bf16", compiled).seconds(a.rounds, a.steps)
        except Exception as error:  # A compiler that is missing must not lose the other figures.
            settings.append({"setting": name, "failed": str(error).strip().splitlines()[0][:200]})
            continue
        settings.append({"setting": name, "seconds_per_step_median": median, "least": least, "most": most,
                         "images_per_second": 2 * a.batch_size / median})
    if a.epoch:
        name = "epoch, bf16, eager, views by Pillow in %d processes" % a.workers
        try:
            seconds = epoch_seconds(torch, GpuStep(torch, twin, a, True, False), a)
            images = 2 * (a.samples // a.batch_size) * a.batch_size
            settings.append({"setting": name, "seconds_per_epoch_median": seconds, "images_per_second": images / seconds})
        except Exception as error:
            settings.append({"setting": name, "failed": str(error).strip().splitlines()[0][:200]})
    result = {"torch": torch.__version__, "gpu": torch.cuda.get_device_name(0), "batch_size": a.batch_size,
              "width": a.width, "settings": settings}
    if a.json:
        print(json.dumps(result))
        return
    print("%s, PyTorch %s, width %d, %d images a step" % (result["gpu"], result["torch"], a.width, 2 * a.batch_size))
    for row in settings:
        if "failed" in row:
            print("%-22s failed: %s" % (row["setting"], row["failed"]))
        elif "seconds_per_epoch_median" in row:
            print("%-22s %9.3f s/epoch %10.0f images/s" % (
                row["setting"], row["seconds_per_epoch_median"], row["images_per_second"]))
        else:
            print("%-22s %9.3f ms/step %10.0f images/s" % (
                row["setting"], 1e3 * row["seconds_per_step_median"], row["images_per_second"]))


if __name__ == "__main__":
    main()
