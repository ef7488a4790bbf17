#!/usr/bin/env python3
"""Times records on the CPU against PyTorch, both taking turns in one run, so that a slow spell falls on both.

    bench_step.py                                    a step of CORR+RECORDS at width 64, 32 samples
    bench_step.py --case mixup --case evaluation     other work; --list shows what there is
    bench_step.py --all --threads 1 --json all.json  the table of docs/measurements.md
    bench_step.py --cpu-time                         one thread and processor time: for a machine that is in use

PyTorch runs twin.py or epochs.py, at the faster of contiguous and channels-last images. Every figure comes with what
the machine did besides, and with how far the turns lie apart; a figure that this makes doubtful is marked. Exit status:
0; 1 if --require is given and not met; 2 if something is missing.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

GET_TORCH = "get it with `apt-get install python3-torch` (Debian) or `pip install torch` (PyPI)"
#: Of other programs, in processors, at most this much runs beside a figure that counts.
MOST_OTHER_WORK = 0.15
#: The turns of one side lie at most this share of their median apart, least to most.
MOST_SPREAD = 0.10
#: What each --simd means to PyTorch: oneDNN and ATen.
PYTORCH_SIMD = {"avx2": ("AVX2", "avx2"), "portable": ("SSE41", "default")}

#: name: (kind, network, method's flags for `records bench step`, what it is)
CASES = {
    "step": ("step", "resnet18", [], "a training step of CORR+RECORDS, images/s"),
    "mixup": ("step", "resnet18", ["--mixup"], "the same with mixed views"),
    "wideresnet": ("step", "wideresnet28", [], "the same on WideResNet-28, --width 16 k"),
    "evaluation": ("evaluation", "resnet18", [], "images/s in evaluation mode"),
    "epoch-corr": ("epoch", "resnet18", [], "an epoch of CORR+RECORDS from image files, Pillow's pipeline"),
    "epoch-solar": ("epoch", "resnet18", [], "an epoch of SoLar, the same"),
    "official-corr": ("official", "resnet18", [], "an epoch of CORR+RECORDS by the official train.py (--official)"),
    "official-solar": ("official", "resnet18", [], "an epoch of SoLar by the official train_solar.py (--official)"),
}

#: The flags of each row of --all.
ALL = [
    ["--case", "step", "--width", "64", "--batch-size", "32"],
    ["--case", "step", "--width", "64", "--batch-size", "32", "--simd", "avx2"],
    ["--case", "step", "--width", "64", "--batch-size", "32", "--precision", "bf16"],
    ["--case", "step", "--width", "8", "--batch-size", "64"],
    ["--case", "mixup", "--width", "64", "--batch-size", "16"],
    ["--case", "wideresnet", "--width", "32", "--batch-size", "32"],
    ["--case", "evaluation", "--width", "64"],
    ["--case", "evaluation", "--width", "8"],
    ["--case", "epoch-corr", "--width", "8", "--batch-size", "64"],
    ["--case", "epoch-solar", "--width", "8", "--batch-size", "64"],
]


def stop(message):
    """Ends with one line and exit status 2."""
    print("bench_step: " + message, file=sys.stderr)
    raise SystemExit(2)


def parse_arguments(words=None):
    parser = argparse.ArgumentParser(description="time records on the CPU against PyTorch, in turns")
    parser.add_argument("--records", default="target/release/records", metavar="FILE", help="the binary (%(default)s)")
    parser.add_argument("--case", action="append", choices=list(CASES), help="what to time, may be repeated (step)")
    parser.add_argument("--official", metavar="FOLDER", help="a checkout of the official code, for its cases")
    parser.add_argument("--all", action="store_true", help="every case of docs/measurements.md, each in a process")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument("--batch-size", type=int, default=32, help="samples a step, two images each (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps or passes a turn (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs a turn of an epoch case (%(default)s)")
    parser.add_argument("--images", type=int, default=1000, help="images of evaluations and epochs (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads of both sides; 0: all processors (%(default)s)")
    parser.add_argument("--simd", choices=list(PYTORCH_SIMD), help="hold both sides to these instructions")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"],
                        help="bf16: PyTorch's autocast, and records' --precision bf16 (%(default)s)")
    parser.add_argument("--cpu-time", action="store_true", help="compare processor time, with one thread")
    parser.add_argument("--json", metavar="FILE", help="write the result there")
    parser.add_argument("--require", type=float, metavar="RATIO",
                        help="exit 1 if a ratio is under this, or nothing could be compared")
    parser.add_argument("--pytorch-only", action="store_true", help="only time PyTorch's settings")
    arguments = parser.parse_args(words)
    for name in ("batch_size", "width", "rounds", "steps", "epochs", "images"):
        if getattr(arguments, name) < 1:
            parser.error("--%s must be at least 1" % name.replace("_", "-"))
    if arguments.threads < 0:
        parser.error("--threads must be at least 0")
    if arguments.cpu_time and arguments.threads not in (0, 1):
        parser.error("--cpu-time compares one thread: leave --threads out")
    official = [case for case in arguments.case or [] if CASES[case][0] == "official"]
    if official and (not arguments.official or arguments.cpu_time):
        parser.error("--case %s needs --official FOLDER, and cannot be with --cpu-time" % official[0])
    if arguments.all and arguments.case:
        parser.error("--all has its own cases: leave --case out")
    return arguments


def processors():
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# ------------------------------------------------------------------------------------- is the machine quiet?


def busy_seconds():
    """Processor time of all programs since the system started, stolen time included; None where it is not counted."""
    try:
        with open("/proc/stat") as file:
            fields = [int(word) for word in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Watch:
    """What the machine does besides what this script runs."""

    def __init__(self):
        self.start = (time.monotonic(), busy_seconds(), own_seconds())
        self.load = os.getloadavg()[0]

    def result(self):
        """{"load_before", "other_work"}: the load average at the start, and processors' worth of other programs."""
        start, busy, own = self.start
        now = busy_seconds()
        other = None
        if busy is not None and now is not None:
            elapsed = max(time.monotonic() - start, 1e-9)
            other = max(0.0, (now - busy) - (own_seconds() - own)) / elapsed
        return {"load_before": self.load, "other_work": other}


def spread(turns):
    """How far turns lie apart, least to most, as a share of the median."""
    return (max(turns) - min(turns)) / statistics.median(turns)


def doubts(watched, turns):
    """Why a figure is doubtful, in words; empty where it is not."""
    found = []
    if watched["other_work"] is None:
        found.append("other work unknown")
    elif watched["other_work"] > MOST_OTHER_WORK:
        found.append("%.2f processors of other work" % watched["other_work"])
    for name, times in turns.items():
        if len(times) < 3:
            found.append("%s had %d turns" % (name, len(times)))
        elif spread(times) > MOST_SPREAD:
            found.append("turns of %s %.0f %% apart" % (name, 100 * spread(times)))
    return found


# ------------------------------------------------------------------------------------------------- PyTorch


def clock(a):
    return time.process_time if a.cpu_time else time.perf_counter


class PyTorchSteps:
    """Training steps that can be timed a few at a time; images are ready in memory."""

    def __init__(self, twin, torch, a, case, memory_format):
        classes, samples = 10, max(256, a.batch_size)
        generator = torch.Generator().manual_seed(0)
        network = twin.WideResNet28 if CASES[case][1] == "wideresnet28" else twin.ResNet18
        model = network(a.width, classes)
        twin.he_initialise(model, 0)
        candidates = torch.rand(samples, classes, generator=generator) < 0.3
        candidates[torch.arange(samples), torch.arange(samples) % classes] = True
        confidence = candidates / candidates.sum(dim=1, keepdim=True)
        self.trainer = twin.Trainer(model, candidates, confidence, lr=0.01, weight_decay=1e-3, debias="records",
                                    memory_format=getattr(torch, memory_format), autocast=a.precision == "bf16")
        pair = [torch.randn(a.batch_size, 3, 32, 32, generator=generator) for _ in range(2)]
        self.images = self.trainer.images(pair)
        self.index = torch.randperm(samples, generator=generator)[:a.batch_size]
        self.mixup = (0.7, torch.randperm(a.batch_size, generator=generator)) if case == "mixup" else None
        self.clock = clock(a)
        #: Images that go forward in a step.
        self.count = (4 if case == "mixup" else 2) * a.batch_size

    def once(self):
        self.trainer.step(self.images, self.index, True, self.mixup)

    def seconds(self, steps):
        """Seconds of each of `steps` steps."""
        times = []
        for _ in range(steps):
            start = self.clock()
            self.once()
            times.append(self.clock() - start)
        return times


class PyTorchEvaluation(PyTorchSteps):
    """Passes over u8 images in evaluation mode, normalised as they come."""

    def __init__(self, twin, torch, a, case, memory_format):
        super().__init__(twin, torch, a, case, memory_format)
        self.torch, self.format = torch, getattr(torch, memory_format)
        self.trainer.model.eval()
        self.pixels = torch.randint(0, 256, (a.images, 3, 32, 32), dtype=torch.uint8)
        self.autocast, self.count = a.precision == "bf16", a.images

    def once(self):
        torch = self.torch
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            for part in self.pixels.split(256):
                images = ((part.float() / 255 - 0.48) / 0.25).contiguous(memory_format=self.format)
                self.trainer.model(images)


def fastest_setting(make, a):
    """(name, bench, seconds by name) of the faster memory format."""
    best, settings = None, {}
    for memory_format in ("contiguous_format", "channels_last"):
        bench = make(memory_format)
        bench.seconds(1)
        settings[memory_format] = statistics.median(bench.seconds(a.steps))
        if best is None or settings[memory_format] < settings[best[0]]:
            best = (memory_format, bench)
    return best[0], best[1], settings


# ------------------------------------------------------------------------------------------------- records


def run_records(a, words):
    """Output of `records <words>`, and the processor time it took."""
    command, shown = [a.records] + words, " ".join(["records"] + words)
    environment = dict(os.environ, **({"RECORDS_SIMD": a.simd} if a.simd else {}))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                              env=environment)
    except OSError as error:
        stop("cannot run %s: %s" % (a.records, error))
    if done.returncode != 0:
        stop("`%s` ended with status %d: %s" % (shown, done.returncode, done.stderr.strip()))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def device_flags(a):
    flags = ["--device", "cpu"] + (["--threads", str(a.threads)] if a.threads else [])
    return flags + (["--precision", "bf16"] if a.precision == "bf16" else [])


def records_seconds(a, case):
    """One turn of `records bench`: its median seconds a step or pass."""
    kind, network, flags, _ = CASES[case]
    words = ["bench", kind, "--arch", network, "--width", str(a.width), "--json"] + device_flags(a) + flags
    if kind == "step":
        words += ["--batch-size", str(a.batch_size), "--steps", str(a.steps)]
    else:
        words += ["--images", str(a.images), "--passes", str(a.steps)]
    output, _ = run_records(a, words)
    key = "seconds_per_%s_median" % ("step" if kind == "step" else "pass")
    try:
        line = json.loads(output.strip().splitlines()[-1])
        seconds = line["processor_" + key if a.cpu_time else key]
        if (line["device"], line["arch"], line["width"]) != ("cpu", network, a.width) or not seconds > 0:
            raise ValueError("it timed something else: %s" % line)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        stop("`records %s` did not print the expected JSON line (%s)" % (" ".join(words), error))
    return float(seconds)


def records_epochs(a, case, images, folder):
    """Seconds an epoch of `records train` on the class folders `images`; with --cpu-time, or beside the official
    code, whose epochs write checkpoints, of the whole process."""
    solar = case.endswith("-solar")
    method = ["--method", "solar", "--est-epochs", "0"] if solar else ["--method", "corr", "--records"]
    words = ["train", "--dataset", "folder", "--data-dir", images, "--imb-factor", "1", "--partial-rate", "0.3",
             "--width", str(a.width), "--batch-size", str(a.batch_size), "--epochs", str(a.epochs), "--lr", "0.01",
             "--exp-dir", folder, "--name", "run%d" % len(os.listdir(folder))] + method + device_flags(a)
    start = time.perf_counter()
    _, processor = run_records(a, words)
    if a.cpu_time:
        return processor / a.epochs
    if CASES[case][0] == "official":
        return (time.perf_counter() - start) / a.epochs
    with open(os.path.join(folder, words[words.index("--name") + 1], "times.jsonl")) as file:
        return sum(json.loads(line)["seconds"] for line in file) / a.epochs


# ------------------------------------------------------------------------------------------------- a case


def take_turns(a, pytorch, records):
    turns = {"PyTorch": [], "records": []}
    for _ in range(a.rounds):
        turns["PyTorch"].append(pytorch())
        # PyTorch's threads spin for a moment after their last work; they must not do so during records' turn.
        time.sleep(0.3)
        turns["records"].append(records())
    return turns


def time_steps(a, case, twin, torch):
    """(images, turns, settings) of a step or an evaluation."""
    bench = PyTorchEvaluation if CASES[case][0] == "evaluation" else PyTorchSteps
    name, best, settings = fastest_setting(lambda memory_format: bench(twin, torch, a, case, memory_format), a)
    told = {"pytorch_setting": name, "pytorch_settings_seconds": settings}
    if a.pytorch_only:
        return best.count, {"PyTorch": [settings[name]]}, told
    turns = take_turns(a, lambda: statistics.median(best.seconds(a.steps)), lambda: records_seconds(a, case))
    return best.count, turns, told


def official_epochs(a, case, images):
    """Seconds an epoch of the official trainer, in a process of its own."""
    words = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "official.py"), a.official,
             case.rpartition("-")[2], "--images", images, "--width", str(a.width), "--batch-size", str(a.batch_size),
             "--epochs", str(a.epochs), "--threads", str(a.threads or processors())]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    if done.returncode != 0:
        stop("official.py ended with status %d: %s" % (done.returncode, done.stderr.strip().splitlines()[-1:]))
    return sum(json.loads(done.stdout.strip().splitlines()[-1])["seconds"]) / a.epochs


def time_official(a, case):
    """An epoch of the official trainer, its start left out; of records' whole process, its start and end included."""
    import epochs
    if a.threads == 1 and hasattr(os, "sched_setaffinity"):
        # The official loaders have four processes of their own.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        images, runs = os.path.join(folder, "images"), os.path.join(folder, "runs")
        os.mkdir(runs)
        train = max(a.images // 10, a.batch_size // 10 + 1)
        epochs.write_images(images, train, max(a.images // 50, 1))
        if a.pytorch_only:
            turns = {"PyTorch": [official_epochs(a, case, images)]}
        else:
            turns = take_turns(a, lambda: official_epochs(a, case, images),
                               lambda: records_epochs(a, case, images, runs))
    return 2 * (10 * train // a.batch_size) * a.batch_size, turns, {"pytorch_setting": "the official code"}


def time_epochs(a, case):
    """The same of an epoch, from image files to evaluation."""
    import epochs
    with tempfile.TemporaryDirectory() as folder:
        images, runs = os.path.join(folder, "images"), os.path.join(folder, "runs")
        os.mkdir(runs)
        epochs.write_images(images, max(a.images // 10, a.batch_size // 10 + 1), max(a.images // 50, 1))
        now = clock(a)

        def pytorch():
            start = now()
            training = epochs.Epochs(images, a.width, a.batch_size, case == "epoch-solar")
            ready = now()
            for epoch in range(a.epochs):
                training.run(epoch)
            pytorch.images = training.images_of_epoch()
            return (now() - (start if a.cpu_time else ready)) / a.epochs

        if a.pytorch_only:
            turns = {"PyTorch": [pytorch()]}
        else:
            turns = take_turns(a, pytorch, lambda: records_epochs(a, case, images, runs))
        return pytorch.images, turns, {"pytorch_setting": "contiguous_format, as the reference"}


def measure(a, case, twin, torch):
    watch = Watch()
    if CASES[case][0] == "official":
        images, turns, told = time_official(a, case)
    elif CASES[case][0] == "epoch":
        images, turns, told = time_epochs(a, case)
    else:
        images, turns, told = time_steps(a, case, twin, torch)
    watched = watch.result()
    row = {
        "case": case, "width": a.width, "batch_size": a.batch_size, "threads": a.threads or processors(),
        "simd": a.simd or "best", "precision": a.precision, "time": "processor" if a.cpu_time else "elapsed",
        "cpu": processor_name(), "torch": torch.__version__, "images": images, "turns": turns,
    }
    row.update(watched, **told)
    row["seconds"] = {name: statistics.median(times) for name, times in turns.items()}
    row["images_per_second"] = {name: images / seconds for name, seconds in row["seconds"].items()}
    # Processor time does not see other programs, only how they share caches and clocks.
    row["doubts"] = doubts(dict(watched, other_work=0.0) if a.cpu_time else watched, turns)
    if "records" in turns:
        ratios = [theirs / ours for theirs, ours in zip(turns["PyTorch"], turns["records"])]
        row["ratio"] = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    return row


def table(rows):
    """The rows as text."""
    lines = ["%-12s %5s %5s %4s %-8s %-4s %12s %12s %-18s %5s %6s %s" % (
        "case", "width", "batch", "thr", "simd", "", "PyTorch", "records", "ratio (range)", "load", "other", "")]
    for row in rows:
        speed, ratio = row["images_per_second"], row.get("ratio")
        lines.append("%-12s %5d %5d %4d %-8s %-4s %8.1f i/s %12s %-18s %5.1f %6s %s" % (
            row["case"], row["width"], row["batch_size"], row["threads"], row["simd"], row["precision"],
            speed["PyTorch"], "%.1f i/s" % speed["records"] if ratio else "-",
            "%.2f (%.2f-%.2f)" % (ratio["median"], ratio["least"], ratio["most"]) if ratio else "-",
            row["load_before"], "-" if row["other_work"] is None else "%.2f" % row["other_work"],
            "QUIET" if not row["doubts"] else "DOUBTFUL: " + "; ".join(row["doubts"])))
    return "\n".join(lines)


def run_all(a):
    """Every row of ALL in a process of its own, because instructions are chosen when PyTorch is loaded."""
    rows = []
    common = ["--records", a.records, "--rounds", str(a.rounds), "--steps", str(a.steps), "--epochs", str(a.epochs),
              "--images", str(a.images), "--threads", str(a.threads)]
    common += ["--cpu-time"] * a.cpu_time + ["--pytorch-only"] * a.pytorch_only
    for words in ALL:
        with tempfile.TemporaryDirectory() as folder:
            result = os.path.join(folder, "rows.json")
            done = subprocess.run([sys.executable, os.path.abspath(__file__)] + words + common + ["--json", result])
            if done.returncode == 0:
                with open(result) as file:
                    rows += json.load(file)
            else:
                print("bench_step: nothing from %s" % " ".join(words), file=sys.stderr)
    return rows


def hold_pytorch(a):
    """Starts again with the variables that hold PyTorch to --simd, which it reads when it is loaded."""
    if a.simd:
        onednn, aten = PYTORCH_SIMD[a.simd]
        wanted = {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": aten}
        if any(os.environ.get(name) != value for name, value in wanted.items()):
            os.environ.update(wanted)
            os.execv(sys.executable, [sys.executable] + sys.argv)


def run_cases(a):
    hold_pytorch(a)
    try:
        import torch
        import twin
    except ImportError as error:
        stop("%s; PyTorch is needed: %s" % (error, GET_TORCH))
    torch.set_num_threads(a.threads or processors())
    return [measure(a, case, twin, torch) for case in a.case or ["step"]]


def main():
    a = parse_arguments()
    if a.list:
        print("\n".join("%-12s %s" % (name, case[3]) for name, case in CASES.items()))
        return 0
    if a.cpu_time:
        a.threads = 1
    if not a.pytorch_only and not os.path.isfile(a.records):
        stop("%s: no such file; build it with `cargo build --release` or name it with --records" % a.records)
    a.records = os.path.abspath(a.records)
    rows = run_all(a) if a.all else run_cases(a)
    if not rows:
        stop("nothing was measured")
    print(table(rows))
    if a.json:
        with open(a.json, "w") as file:
            json.dump(rows, file, indent=2)
            file.write("\n")
    ratios = [row["ratio"]["median"] for row in rows if "ratio" in row]
    if a.require is not None and (not ratios or min(ratios) < a.require):
        shown = "%.3f" % min(ratios) if ratios else "nothing compared"
        print("bench_step: %s is under the required %.3f" % (shown, a.require), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
