"""Whole epochs in plain PyTorch, as the reference's trainers do them: images augmented by Pillow one by one, a step for
each batch, and an evaluation. What records' epochs are timed against (bench_step.py); results are not compared.

The augmentation follows docs/spec.md, section 4, in its distributions; the random numbers are Python's own.
"""

import math
import os
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

import twin

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
SIDE = 32


# ------------------------------------------------------------------------------------------------- images


def write_images(folder, train_per_class, test_per_class, classes=10):
    """Made-up images that can be learnt, a PNG each in folder/train/<class>/ and folder/test/<class>/."""
    generator = np.random.RandomState(0)
    for label in range(classes):
        pattern = generator.uniform(0, 255, (4, 4, 3)).astype(np.uint8)
        pattern = np.asarray(Image.fromarray(pattern).resize((SIDE, SIDE), Image.BILINEAR), dtype=np.float32)
        for part, count in (("train", train_per_class), ("test", test_per_class)):
            place = os.path.join(folder, part, "class%d" % label)
            os.makedirs(place)
            for number in range(count):
                noise = generator.normal(0, 60, (SIDE, SIDE, 3))
                pixels = np.clip(pattern + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(os.path.join(place, "%05d.png" % number))


def read_images(folder, part):
    """(list of Pillow images, labels as a tensor)."""
    images, labels = [], []
    for label, name in enumerate(sorted(os.listdir(os.path.join(folder, part)))):
        place = os.path.join(folder, part, name)
        for file in sorted(os.listdir(place)):
            images.append(Image.open(os.path.join(place, file)).convert("RGB"))
            labels.append(label)
    return images, torch.tensor(labels)


def draw_candidates(labels, classes, rate, seed):
    """Candidate sets [N,K]: the true class, and each other with probability `rate`."""
    generator = torch.Generator().manual_seed(seed)
    candidates = (torch.rand(len(labels), classes, generator=generator) < rate).float()
    candidates[torch.arange(len(labels)), labels] = 1.0
    return candidates


def normalised(images):
    """Pillow images as f32 [N,3,H,W], normalised."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (pixels.float() / 255 - mean) / deviation


# ------------------------------------------------------------------------------------------------- views


def resized_crop(image):
    """A crop of 0.2 to 1 of the area and a ratio of 3/4 to 4/3, resized to the whole size."""
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(0.2, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return image.resize((width, height), Image.BILINEAR, box=(left, top, left + w, top + h))
    return image


def turn_hue(image, by):
    hue, saturation, value = image.convert("HSV").split()
    hue = Image.fromarray((np.asarray(hue).astype(np.int16) + int(by * 255)).astype(np.uint8))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def weak_view(image):
    image = resized_crop(image)
    if random.random() < 0.5:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    if random.random() < 0.8:
        parts = [
            lambda image: ImageEnhance.Brightness(image).enhance(random.uniform(0.6, 1.4)),
            lambda image: ImageEnhance.Contrast(image).enhance(random.uniform(0.6, 1.4)),
            lambda image: ImageEnhance.Color(image).enhance(random.uniform(0.6, 1.4)),
            lambda image: turn_hue(image, random.uniform(-0.1, 0.1)),
        ]
        random.shuffle(parts)
        for part in parts:
            image = part(image)
    return image.convert("L").convert("RGB") if random.random() < 0.2 else image


def affine(image, coefficients):
    return image.transform(image.size, Image.AFFINE, coefficients)


#: (operation of an image and a value, least and largest value)
OPERATIONS = [
    (lambda image, _: ImageOps.autocontrast(image), 0, 1),
    (lambda image, v: ImageEnhance.Brightness(image).enhance(v), 0.05, 0.95),
    (lambda image, v: ImageEnhance.Color(image).enhance(v), 0.05, 0.95),
    (lambda image, v: ImageEnhance.Contrast(image).enhance(v), 0.05, 0.95),
    (lambda image, _: ImageOps.equalize(image), 0, 1),
    (lambda image, _: image, 0, 1),
    (lambda image, v: ImageOps.posterize(image, max(1, int(v))), 4, 8),
    (lambda image, v: image.rotate(v), -30, 30),
    (lambda image, v: ImageEnhance.Sharpness(image).enhance(v), 0.05, 0.95),
    (lambda image, v: affine(image, (1, v, 0, 0, 1, 0)), -0.3, 0.3),
    (lambda image, v: affine(image, (1, 0, 0, v, 1, 0)), -0.3, 0.3),
    (lambda image, v: ImageOps.solarize(image, int(v)), 0, 256),
    (lambda image, v: affine(image, (1, 0, v * image.size[0], 0, 1, 0)), -0.3, 0.3),
    (lambda image, v: affine(image, (1, 0, 0, 0, 1, v * image.size[1])), -0.3, 0.3),
]


def strong_view(image):
    image = resized_crop(image)
    if random.random() < 0.5:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    for operation, least, largest in random.choices(OPERATIONS, k=3):
        image = operation(image, random.uniform(least, largest))
    side = random.uniform(0, 0.5) * image.size[0]
    x = max(0, int(random.uniform(1, image.size[0]) - side / 2))
    y = max(0, int(random.uniform(1, image.size[1]) - side / 2))
    image = image.copy()
    ImageDraw.Draw(image).rectangle((x, y, x + side, y + side), (125, 123, 114))
    return image


# ------------------------------------------------------------------------------------------------- epochs


class Epochs:
    """Training on images in memory. `solar` chooses SoLar's step, else that of CORR+RECORDS."""

    def __init__(self, folder, width, batch, solar, memory_format=torch.contiguous_format):
        self.train, labels = read_images(folder, "train")
        self.test, _ = read_images(folder, "test")
        self.classes, self.batch, self.solar = int(labels.max()) + 1, batch, solar
        self.memory_format = memory_format
        candidates = draw_candidates(labels, self.classes, 0.3, 0)
        model = twin.ResNet18(width, self.classes)
        twin.he_initialise(model, 0)
        confidence = candidates / candidates.sum(dim=1, keepdim=True)
        self.trainer = twin.Trainer(model, candidates, confidence, lr=0.01, weight_decay=1e-3,
                                    memory_format=memory_format)
        self.own = SolarStep(self.trainer, batch, self.classes) if solar else None

    def images_of_epoch(self):
        """Images through the network in the steps of an epoch where everything is done, two for each sample."""
        return 2 * (len(self.train) // self.batch) * self.batch

    def logits(self, images):
        """Logits of images without augmentation, in evaluation mode."""
        self.trainer.model.eval()
        with torch.no_grad():
            parts = [
                self.trainer.model(normalised(images[at:at + 256]).contiguous(memory_format=self.memory_format))[0]
                for at in range(0, len(images), 256)
            ]
        self.trainer.model.train()
        return torch.cat(parts)

    def run(self, epoch):
        order = torch.randperm(len(self.train))
        for at in range(0, len(order) - self.batch + 1, self.batch):
            index = order[at:at + self.batch]
            weak = normalised([weak_view(self.train[i]) for i in index.tolist()])
            strong = normalised([strong_view(self.train[i]) for i in index.tolist()])
            if self.solar:
                self.own.step(*(v.contiguous(memory_format=self.memory_format) for v in (weak, strong)), index, epoch)
            else:
                self.trainer.step(self.trainer.images((weak, strong)), index, epoch >= 1)
        self.logits(self.test)
        if self.solar:
            self.own.move_prior(self.logits(self.train))


def sinkhorn(predictions, prior, rounds=50):
    """Pseudo-labels of docs/spec.md, section 7, step 3, without its relaxed attempt."""
    powers = predictions ** 3
    rows = torch.full((len(powers), 1), 1.0 / len(powers))
    for _ in range(rounds):
        columns = prior / (powers.t() @ rows).squeeze(1)
        rows = (1.0 / len(powers)) / (powers @ columns.unsqueeze(1))
    return len(powers) * powers * columns * rows


class SolarStep:
    """SoLar's state beside the trainer's, and its step."""

    def __init__(self, trainer, batch, classes, queue=64):
        self.trainer = trainer
        self.prior = torch.full((classes,), 1.0 / classes)
        self.queue = torch.zeros(queue * batch, classes)

    def step(self, weak, strong, index, epoch, eta=0.9, tau=0.99, warm_up=50):
        model, candidates, confidence = self.trainer.model, self.trainer.candidates, self.trainer.confidence
        logits, logits_strong = model(weak)[0], model(strong)[0]
        batch = len(index)
        log_p = F.log_softmax(logits, dim=1)
        p = log_p.detach().exp()
        masked = p * candidates[index]
        full = bool((self.queue[-1] != 0).any())
        q = sinkhorn(torch.cat([self.queue, masked]) if full else masked, self.prior)[-batch:]
        self.queue = torch.cat([masked, self.queue[:-batch]])
        pseudo, other = -(q * log_p).sum(dim=1), -(confidence[index] * log_p).sum(dim=1)
        ramp = min(1.0, epoch / warm_up)
        chosen = torch.zeros(batch, dtype=torch.bool)
        if epoch > 0:
            chosen = (q * p).sum(dim=1) > tau
            of = q.argmax(dim=1)
            for label in of.unique():
                members = (of == label).nonzero().squeeze(1)
                wanted = max(1, min(math.ceil(batch * float(self.prior[label]) * (0.2 + 0.4 * ramp)), len(members)))
                chosen[members[pseudo.detach()[members].argsort()[:wanted]]] = True
        if chosen.any():
            kept = chosen.nonzero().squeeze(1)
            share = np.random.beta(4, 4)
            share = max(share, 1 - share)
            partners = kept[torch.randperm(len(kept))]
            mixed = model(share * weak[kept] + (1 - share) * weak[partners])[0]
            target = share * q[kept] + (1 - share) * q[partners]
            entropy = lambda logits, target: -(target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
            loss = eta * ramp * (pseudo[kept].mean() + entropy(logits_strong[kept], q[kept]) + entropy(mixed, target))
            if len(kept) < batch:
                loss = loss + (1 - eta * ramp) * other[~chosen].mean()
        else:
            loss = other.mean()
        self.trainer.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.trainer.optimizer.step()
        confidence[index] = masked / masked.sum(dim=1, keepdim=True)
        return loss.item()

    def move_prior(self, logits, gamma=0.1):
        counts = (F.softmax(logits, dim=1) * self.trainer.candidates).argmax(dim=1).bincount(minlength=len(self.prior))
        self.prior = gamma * counts / counts.sum() + (1 - gamma) * self.prior
