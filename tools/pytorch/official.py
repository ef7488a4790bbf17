#!/usr/bin/env python3
"""Runs the official trainers of RECORDS (train.py, train_solar.py) on the CPU and times their epochs.

    git clone https://github.com/MediaBrain-SJTU/RECORDS-LTPLL
    official.py RECORDS-LTPLL corr --images FOLDER --width 8 --batch-size 64 --epochs 3

Their files are run as they are. What they need of a machine with a GPU is put in the place of what is missing: a tensor
stays where it is when it is sent to a GPU, the group of one process talks through gloo; TensorBoard's logger does nothing,
nor does scikit-learn, which is imported and not used. Their network has 64 channels in its first stage; --width replaces
that number and its multiples where their model file is read. Their data set is CIFAR-10: FOLDER has train/<class>/ and
test/<class>/, ten classes, 32 x 32, and is written in CIFAR-10's format. Needs torchvision and pandas. Prints one JSON
line with the seconds of each epoch.
"""

import argparse
import ast
import importlib.abc
import importlib.util
import json
import os
import pickle
import runpy
import socket
import sys
import tempfile
import time
import types

import numpy as np
import torch
import torchvision
from PIL import Image

#: Channels that the official model files name.
CHANNELS = (64, 128, 256, 512)


def parse_arguments():
    parser = argparse.ArgumentParser(description="time the official trainers on the CPU")
    parser.add_argument("source", help="a checkout of the official code")
    parser.add_argument("trainer", choices=["corr", "solar"], help="train.py --records, or train_solar.py")
    parser.add_argument("--images", required=True, metavar="FOLDER", help="train/<class>/ and test/<class>/")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="samples a step (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the trainer (%(default)s)")
    return parser.parse_args()


def write_cifar(images, folder):
    """CIFAR-10's pickled batches of the class folders `images`: five for training, one for testing."""
    place = os.path.join(folder, "data", "cifar-10-batches-py")
    os.makedirs(place)
    for part, names in (("train", ["data_batch_%d" % n for n in range(1, 6)]), ("test", ["test_batch"])):
        pixels, labels = [], []
        for label, name in enumerate(sorted(os.listdir(os.path.join(images, part)))):
            for file in sorted(os.listdir(os.path.join(images, part, name))):
                image = Image.open(os.path.join(images, part, name, file)).convert("RGB")
                pixels.append(np.asarray(image).transpose(2, 0, 1).reshape(-1))
                labels.append(label)
        for own, name in zip(np.array_split(np.arange(len(labels)), len(names)), names):
            with open(os.path.join(place, name), "wb") as file:
                pickle.dump({"data": np.stack([pixels[i] for i in own]), "labels": [labels[i] for i in own]}, file)


class Narrower(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Reads the official model files with other numbers of channels."""

    def __init__(self, source, width):
        self.source, self.width = source, width

    def find_spec(self, name, path=None, target=None):
        if name not in ("models.resnet", "utils_solar.resnet"):
            return None
        file = os.path.join(self.source, *name.split(".")) + ".py"
        return importlib.util.spec_from_file_location(name, file, loader=self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        with open(module.__spec__.origin) as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in CHANNELS and isinstance(node.value, int):
                node.value = node.value * self.width // CHANNELS[0]
        exec(compile(tree, module.__spec__.origin, "exec"), module.__dict__)


def stand_in_for_the_gpu():
    """Lets code for one GPU run on the CPU."""
    stays = lambda self, *arguments, **named: self
    torch.Tensor.cuda = torch.nn.Module.cuda = stays
    torch.cuda.device_count = lambda: 1
    torch.cuda.set_device = lambda device: None
    torch.multiprocessing.spawn = lambda worker, nprocs, args: worker(0, *args)
    parallel = torch.nn.parallel.DistributedDataParallel
    torch.nn.parallel.DistributedDataParallel = lambda model, device_ids=None: parallel(model)
    logger = types.ModuleType("tensorboard_logger")
    logger.Logger = lambda *arguments, **named: types.SimpleNamespace(log_value=lambda *values: None)
    sys.modules["tensorboard_logger"] = logger
    # Imported by train.py, and not used.
    for name in ("sklearn", "sklearn.utils"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["sklearn.utils"].shuffle = None


def read_what_was_written():
    """Lets torchvision take the data for CIFAR-10 although its checksums are others."""
    cifar = torchvision.datasets.CIFAR10
    cifar._check_integrity = lambda self: True
    cifar._load_meta = lambda self: None


def note_epochs(module):
    """Times of each call of the module's adjust_learning_rate, which both trainers make where an epoch begins."""
    begun, original = [], module.adjust_learning_rate

    def noted(*arguments):
        begun.append(time.perf_counter())
        return original(*arguments)

    module.adjust_learning_rate = noted
    return begun


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def main():
    a = parse_arguments()
    source, script = os.path.abspath(a.source), "train_solar.py" if a.trainer == "solar" else "train.py"
    if not os.path.isfile(os.path.join(source, script)):
        print("official: %s has no %s; clone https://github.com/MediaBrain-SJTU/RECORDS-LTPLL" % (a.source, script),
              file=sys.stderr)
        return 2
    torch.set_num_threads(a.threads)
    sys.path.insert(0, source)
    sys.meta_path.insert(0, Narrower(source, a.width))
    stand_in_for_the_gpu()
    read_what_was_written()
    words = ["--dataset", "cifar10_im", "--batch_size", str(a.batch_size), "--epochs", str(a.epochs), "--lr", "0.01",
             "--partial_rate", "0.3", "--wd", "1e-3", "--exp_dir", "runs", "--seed", "0"]
    if a.trainer == "solar":
        import utils_solar.general as module
        words += ["--est_epochs", "0", "--imb_ratio", "1", "--save_ckpt"]
    else:
        import utils.utils_algo as module
        words += ["--records", "--imb_factor", "1", "--multiprocessing_distributed", "--world_size", "1", "--rank", "0",
                  "--dist_backend", "gloo", "--dist_url", "tcp://localhost:%d" % free_port()]
    begun = note_epochs(module)
    # What the trainers print is not a result here.
    output, sys.stdout = sys.stdout, sys.stderr
    images = os.path.abspath(a.images)
    with tempfile.TemporaryDirectory() as folder:
        write_cifar(images, folder)
        os.chdir(folder)
        sys.argv = [script] + words
        runpy.run_path(os.path.join(source, script), run_name="__main__")
        begun.append(time.perf_counter())
        os.chdir(source)
    if len(begun) != a.epochs + 1:
        print("official: %d epochs were seen, not %d" % (len(begun) - 1, a.epochs), file=sys.stderr)
        return 1
    print(json.dumps({"seconds": [end - start for start, end in zip(begun, begun[1:])]}), file=output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
