"""Tests of bench_step.py and epochs.py: `python3 -m unittest discover tools/pytorch`. They need PyTorch and Pillow, but
no binary of records: a stand-in prints what `records bench` would."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import torch  # noqa: E402

import bench_step  # noqa: E402
import epochs  # noqa: E402
import twin  # noqa: E402

STAND_IN = """#!/usr/bin/env python3
import json, os, sys
words = sys.argv[1:]
of = lambda flag: words[words.index(flag) + 1]
kind = "step" if words[1] == "step" else "pass"
print(json.dumps({"device": "cpu", "arch": of("--arch"), "width": int(of("--width")),
                  "seconds_per_%s_median" % kind: 0.5, "processor_seconds_per_%s_median" % kind: 0.25,
                  "simd": os.environ.get("RECORDS_SIMD")}))
"""


class Doubts(unittest.TestCase):
    quiet = {"load_before": 0.1, "other_work": 0.0}

    def test_a_quiet_machine_is_not_doubted(self):
        self.assertEqual(bench_step.doubts(self.quiet, {"a": [1.0, 1.02, 0.99]}), [])

    def test_other_work_few_turns_and_spread_are(self):
        busy = dict(self.quiet, other_work=1.5)
        for watched, turns in [(busy, [1.0, 1.0, 1.0]), (self.quiet, [1.0, 1.0]), (self.quiet, [1.0, 1.0, 1.2]),
                               (dict(self.quiet, other_work=None), [1.0, 1.0, 1.0])]:
            self.assertEqual(len(bench_step.doubts(watched, {"a": turns})), 1, (watched, turns))

    def test_a_busy_program_is_seen(self):
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        watch = bench_step.Watch()
        try:
            busy.wait(timeout=1.5)
        except subprocess.TimeoutExpired:
            pass
        seen = watch.result()["other_work"]
        busy.kill()
        busy.wait()
        if seen is None:
            self.skipTest("this system does not count processor time")
        self.assertGreater(seen, 0.2)


class Cases(unittest.TestCase):
    def run_script(self, *words):
        with tempfile.TemporaryDirectory() as folder:
            records, result = os.path.join(folder, "records"), os.path.join(folder, "rows.json")
            with open(records, "w") as file:
                file.write(STAND_IN)
            os.chmod(records, os.stat(records).st_mode | stat.S_IXUSR)
            script = [sys.executable, os.path.join(HERE, "bench_step.py"), "--records", records, "--json", result]
            small = ["--width", "8", "--batch-size", "4", "--rounds", "1", "--steps", "1", "--images", "20"]
            done = subprocess.run(script + small + list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  universal_newlines=True)
            rows = []
            if os.path.exists(result):
                with open(result) as file:
                    rows = json.load(file)
            return done, rows

    def test_each_case_gives_a_row(self):
        done, rows = self.run_script("--case", "step", "--case", "mixup", "--case", "evaluation", "--threads", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([row["images"] for row in rows], [8, 16, 20])
        for row in rows:
            self.assertEqual(row["seconds"]["records"], 0.5)
            self.assertAlmostEqual(row["ratio"]["median"], row["turns"]["PyTorch"][0] / 0.5)
            self.assertIn("records had 1 turns", row["doubts"])

    def test_processor_time_is_that_of_both_sides(self):
        done, rows = self.run_script("--cpu-time")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((rows[0]["seconds"]["records"], rows[0]["threads"]), (0.25, 1))

    def test_a_ratio_that_is_too_low_fails(self):
        self.assertEqual(self.run_script("--require", "1e9")[0].returncode, 1)

    def test_instructions_are_held_down(self):
        done, rows = self.run_script("--simd", "avx2", "--threads", "1")
        self.assertEqual((done.returncode, rows[0]["simd"]), (0, "avx2"), done.stderr)

    def test_the_official_code_must_be_named(self):
        done, _ = self.run_script("--case", "official-corr")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--official FOLDER", done.stderr)

    @unittest.skipUnless(os.environ.get("RECORDS_OFFICIAL"), "RECORDS_OFFICIAL names no checkout of the official code")
    def test_the_official_trainers_run(self):
        for trainer in ("corr", "solar"):
            with tempfile.TemporaryDirectory() as folder:
                epochs.write_images(folder, 6, 2)
                words = [os.environ["RECORDS_OFFICIAL"], trainer, "--images", folder, "--width", "4"]
                done = subprocess.run([sys.executable, os.path.join(HERE, "official.py")] + words +
                                      ["--batch-size", "30", "--epochs", "2"], stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, universal_newlines=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(len(json.loads(done.stdout)["seconds"]), 2)

    def test_a_missing_binary_is_one_line(self):
        done = subprocess.run([sys.executable, os.path.join(HERE, "bench_step.py"), "--records", "/nowhere/records"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (2, 1), done.stderr)


class Twin(unittest.TestCase):
    def test_the_wide_network_has_the_size_of_the_paper(self):
        count = sum(parameter.numel() for parameter in twin.WideResNet28(32, 10).parameters())
        self.assertEqual(count, 1_467_610)

    def test_pseudo_labels_have_the_given_class_frequencies(self):
        prior = torch.tensor([0.5, 0.3, 0.2])
        q = epochs.sinkhorn(torch.rand(60, 3, generator=torch.Generator().manual_seed(1)), prior)
        self.assertTrue(torch.allclose(q.sum(dim=1), torch.ones(60), atol=1e-4))
        self.assertTrue(torch.allclose(q.mean(dim=0), prior, atol=1e-3))

    def test_both_kinds_of_epoch_train(self):
        with tempfile.TemporaryDirectory() as folder:
            epochs.write_images(folder, 6, 1, classes=3)
            for solar in (False, True):
                training = epochs.Epochs(folder, 8, 9, solar)
                self.assertEqual(training.images_of_epoch(), 36)
                weights = training.trainer.model.fc.weight.detach().clone()
                for epoch in range(2):
                    training.run(epoch)
                self.assertFalse(torch.equal(weights, training.trainer.model.fc.weight))
                rows = training.trainer.confidence.sum(dim=1)
                self.assertTrue(torch.allclose(rows, torch.ones_like(rows), atol=1e-4))


if __name__ == "__main__":
    unittest.main()
