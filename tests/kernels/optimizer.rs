//! SGD, AdamW, addition and conversion: the same bits as the CPU's.

use records::autograd::Add;
use records::device::Tensor;
use records::device::gpu::Precision;
use records::operations;
use records::ops::elementwise::{Convert, Sum};
use records::optim::adamw::{AdamW, AdvanceCorrections};
use records::optim::loss_scale::{self, MoveScale, ScaleGradients, Scaling};
use records::optim::sgd::Sgd;

use crate::pair::{PRECISIONS, Pair, Random, Value, rounded_as};

const LENGTHS: [usize; 8] = [1, 3, 4, 5, 255, 1024, 1025, 5003];

fn sgd(len: usize, gradients: Tensor, copy: Option<Tensor>) -> Sgd {
    let [control, velocity, parameters] = [0, 1, 2].map(Tensor);
    Sgd {
        len,
        momentum: 0.9,
        weight_decay: 1e-3,
        nesterov: false,
        control,
        gradients,
        scaling: None,
        velocity,
        parameters,
        copy,
    }
}

/// Control, velocity, parameters, and the gradients of three steps.
fn operands(random: &mut Random, len: usize) -> Vec<Value> {
    let mut values =
        vec![Value::F32(vec![0.0173, 1.0]), Value::F32(vec![0.0; len]), Value::F32(random.normal(len, 1.0))];
    values.extend((0..3).map(|_| Value::F32(random.normal(len, 0.1))));
    values
}

#[test]
fn sgd_over_several_steps() {
    let mut pair = Pair::new(Precision::F32);
    for len in LENGTHS {
        let values = operands(&mut Random::new(&format!("sgd {len}")), len);
        for nesterov in [false, true] {
            let step = |gradients| Sgd { nesterov, ..sgd(len, Tensor(gradients), None) };
            let outcome = pair.run(&[3, 4, 5].map(step), &values);
            outcome.assert_equal(&format!("velocity of {len}, {nesterov}"), Tensor(1));
            outcome.assert_equal(&format!("parameters of {len}, {nesterov}"), Tensor(2));
        }
    }
}

/// The copy equals the new parameters, rounded; writing it changes nothing else.
#[test]
fn sgd_writes_the_rounded_copy() {
    for (precision, len) in
        [Precision::Bf16, Precision::F16].into_iter().flat_map(|p| LENGTHS.map(|len| (p, len)))
    {
        let mut pair = Pair::new(precision);
        let mut values = operands(&mut Random::new(&format!("sgd {len}")), len)[..4].to_vec();
        values.push(Value::ActivationOutput(len));
        let outcome = pair.run(&[sgd(len, Tensor(3), Some(Tensor(4)))], &values);
        outcome.assert_equal(&format!("velocity of {len}"), Tensor(1));
        outcome.assert_equal(&format!("parameters of {len}"), Tensor(2));
        let rounded: Vec<f32> = outcome.cpu[2].iter().map(|&p| rounded_as(precision, p)).collect();
        assert_eq!(outcome.kernels[4], rounded, "copy of {len}");
    }
}

/// Three steps and the rounded copy of the last; in f16, with a loss scale of 1024.
#[test]
fn adamw_over_several_steps() {
    for (precision, len) in
        [Precision::Bf16, Precision::F16].into_iter().flat_map(|p| LENGTHS.map(|len| (p, len)))
    {
        let mut pair = Pair::new(precision);
        let [state, not_finite] = [9, 10].map(Tensor);
        let scaling = (precision == Precision::F16).then_some(Scaling { state, not_finite });
        let mut random = Random::new(&format!("adamw {len}"));
        let [control, corrections, mean, square, parameters, copy] = std::array::from_fn(Tensor);
        let mut values = vec![Value::F32(vec![0.0173, 1.0]), Value::F32(vec![0.0; 2])];
        values.extend([0.0; 2].map(|zero| Value::F32(vec![zero; len])));
        values.extend([Value::F32(random.normal(len, 1.0)), Value::ActivationOutput(len)]);
        values.extend((0..3).map(|_| Value::F32(random.normal(len, 0.1))));
        values.extend([scale(1024.0), Value::I32(vec![0])]);
        let betas = [0.9, 0.999];
        let steps: Vec<_> = (6..9)
            .flat_map(|gradients| {
                let gradients = Tensor(gradients);
                let (weight_decay, copy) = (0.01, Some(copy));
                records::operations![
                    AdvanceCorrections { betas, scaling, corrections },
                    AdamW {
                        len,
                        betas,
                        weight_decay,
                        control,
                        corrections,
                        gradients,
                        scaling,
                        mean,
                        square,
                        parameters,
                        copy
                    }
                ]
            })
            .collect();
        let outcome = pair.run_each(&steps, &values);
        for (tensor, what) in [(corrections, "corrections"), (mean, "mean"), (square, "square")] {
            outcome.assert_equal(&format!("{what} of {len}"), tensor);
        }
        outcome.assert_equal(&format!("parameters of {len}"), parameters);
        let rounded: Vec<f32> = outcome.cpu[parameters.0].iter().map(|&p| rounded_as(precision, p)).collect();
        assert_eq!(outcome.kernels[copy.0], rounded, "copy of {len}");
    }
}

/// The state of the loss scale before a step.
fn scale(value: f32) -> Value {
    let mut state = vec![0.0; loss_scale::LEN];
    state[loss_scale::LOSS_SCALE] = value;
    Value::F32(state)
}

/// SGD with a loss scale, in f16: the CPU's bits, and its own without a scale, because powers of two change none. A
/// step with a gradient that is not finite changes nothing.
#[test]
fn sgd_takes_the_loss_scale_out() {
    for len in LENGTHS {
        let mut pair = Pair::new(Precision::F16);
        let mut values = operands(&mut Random::new(&format!("scaled sgd {len}")), len)[..4].to_vec();
        let Value::F32(plain) = values[3].clone() else { unreachable!() };
        let Value::F32(parameters) = values[2].clone() else { unreachable!() };
        values.push(Value::Activations(parameters));
        values.extend([scale(4096.0), Value::I32(vec![0])]);
        let scaling = Scaling { state: Tensor(5), not_finite: Tensor(6) };
        for nesterov in [false, true] {
            let unscaled = Sgd { nesterov, ..sgd(len, Tensor(3), Some(Tensor(4))) };
            let step = Sgd { scaling: Some(scaling), ..unscaled.clone() };
            values[3] = Value::F32(plain.clone());
            let expected = pair.run(&[unscaled], &values);
            values[3] = Value::F32(plain.iter().map(|g| g * 4096.0).collect());
            let outcome = pair.run(std::slice::from_ref(&step), &values);
            for tensor in [1, 2, 4] {
                assert_eq!(outcome.kernels[tensor], expected.kernels[tensor], "{tensor} of {len}");
            }
            outcome.assert_equal(&format!("parameters of {len}"), Tensor(2));
            values[6] = Value::I32(vec![1]);
            let left_out = pair.run(&[step], &values);
            left_out.assert_equal(&format!("velocity of {len}"), Tensor(1));
            left_out.assert_equal(&format!("parameters of {len}"), Tensor(2));
            let Value::F32(before) = &values[2] else { unreachable!() };
            assert_eq!(&left_out.kernels[2], before);
            values[6] = Value::I32(vec![0]);
        }
    }
}

/// Scaled gradients, and the scale after steps with and without overflow, the last of which ends its growth.
#[test]
fn the_loss_scale_moves() {
    let mut pair = Pair::new(Precision::F16);
    let scaling = Scaling { state: Tensor(0), not_finite: Tensor(1) };
    for len in LENGTHS {
        for (value, good, found) in [(65536.0, 0.0, 0), (65536.0, 1999.0, 0), (8.0, 1999.0, 2), (1.0, 3.0, 1)]
        {
            let Value::F32(mut state) = scale(value) else { unreachable!() };
            state[loss_scale::GOOD_STEPS] = good;
            let gradients = Random::new(&format!("loss scale {len}")).normal(len, 1.0);
            let values = [Value::F32(state), Value::I32(vec![found]), Value::F32(gradients.clone())];
            let scale = ScaleGradients { len, scale: Tensor(0), gradients: Tensor(2) };
            let outcome = pair.run_each(&operations![scale, MoveScale { scaling }], &values);
            (0..3).for_each(|tensor| outcome.assert_equal(&format!("{value} {len}"), Tensor(tensor)));
            let expected = match (found, good) {
                (0, 1999.0) => [2.0 * value, 0.0, 0.0, 1.0, 0.0],
                (0, _) => [value, good + 1.0, 0.0, 1.0, 0.0],
                _ => [value / 2.0, 0.0, 1.0, 1.0, if value == 1.0 { 1.0 } else { 0.0 }],
            };
            assert_eq!(outcome.kernels[0], expected);
            assert_eq!(outcome.kernels[1], [0.0]);
            assert_eq!(outcome.kernels[2], gradients.iter().map(|g| g * value).collect::<Vec<_>>());
        }
    }
}

/// For gradients in f32 and for those of activations; each sum is rounded once.
#[test]
fn addition() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for len in LENGTHS {
            let mut random = Random::new(&format!("addition {precision:?} {len}"));
            let mut x = random.normal(len, 1.0);
            x[len / 2] = f32::NAN;
            let values = [Value::Activations(x), Value::Activations(random.normal(len, 10.0))];
            let mut outcome = pair.run(&[Add { len, x: Tensor(0), into: Tensor(1) }], &values);
            outcome.cpu[1].iter_mut().for_each(|v| *v = rounded_as(precision, *v));
            // Exact; but a NaN rounded to bf16 has other bits on a GPU.
            outcome.assert_close(&format!("{precision:?} {len}"), Tensor(1), 0.0, 0.0);
        }
    }
}

/// Parameters' gradients are parts of an arena and may start anywhere; their neighbours stay unchanged.
#[test]
fn addition_of_parts_of_an_arena() {
    for precision in PRECISIONS {
        let device = &mut *Pair::new(precision).kernels;
        for (len, [from, to]) in [(1, [1, 0]), (37, [3, 1]), (37, [8, 2]), (1027, [5, 5])] {
            // Whole numbers up to 256 are exact in bf16.
            let values: Vec<f32> = (0..len + 16).map(|i| (i % 100) as f32).collect();
            let arenas = [(); 2].map(|()| {
                let buffer = device.allocate(device.activations(), len + 16, "a test operand").unwrap();
                device.write_f32(buffer, &values).unwrap();
                buffer
            });
            let add = Add { len, x: Tensor(0), into: Tensor(1) };
            device.execute(&add, &[arenas[0].part(from, len), arenas[1].part(to, len)]).unwrap();
            let mut expected = values.clone();
            (0..len).for_each(|i| expected[to + i] += values[from + i]);
            assert_eq!(
                device.read_f32(arenas[1]).unwrap(),
                expected,
                "{precision:?}, {len} from {from} to {to}"
            );
        }
    }
}

/// Ties go to even; the largest f32 becomes infinity in bf16 and f16; tiny values and both zeros keep their sign.
#[test]
fn conversion() {
    let special = [
        0.0,
        -0.0,
        1.0,
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
        f32::from_bits(0xbf81_7fff),
        f32::MAX,
        f32::NEG_INFINITY,
        f32::from_bits(0x0001_8000),
        f32::from_bits(0x8000_0001),
        // Ties of f16, the last value before infinity and the first beyond, the least subnormal and half of it.
        f32::from_bits(0x3f80_1000),
        f32::from_bits(0x3f80_3000),
        65_519.996,
        65_520.0,
        -2f32.powi(-24),
        2f32.powi(-25),
        1.5 * 2f32.powi(-24),
    ];
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for len in LENGTHS {
            let what = format!("{precision:?} {len}");
            let mut from = Random::new(&format!("conversion {what}")).normal(len, 1.0);
            from.iter_mut().zip(special).for_each(|(value, special)| *value = special);
            let values = [Value::F32(from), Value::ActivationOutput(len)];
            let mut outcome = pair.run(&[Convert { len, from: Tensor(0), to: Tensor(1) }], &values);
            outcome.cpu[1].iter_mut().for_each(|v| *v = rounded_as(precision, *v));
            outcome.assert_equal(&what, Tensor(1));
        }
    }
}

/// Sums of both types, each rounded once, and copies.
#[test]
fn sums_and_copies() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for len in LENGTHS {
            let mut random = Random::new(&format!("sum {precision:?} {len}"));
            let values = [
                Value::Activations(random.normal(len, 1.0)),
                Value::Activations(random.normal(len, 1.0)),
                Value::ActivationOutput(len),
                Value::ActivationOutput(len),
            ];
            let sum = Sum { len, terms: [Tensor(0), Tensor(1)], out: Tensor(2) };
            let copy = Convert { len, from: Tensor(0), to: Tensor(3) };
            let mut outcome = pair.run_each(&records::operations![sum, copy], &values);
            outcome.cpu[2].iter_mut().for_each(|sum| *sum = rounded_as(precision, *sum));
            outcome.assert_equal(&format!("{precision:?}: sum of {len}"), Tensor(2));
            outcome.assert_equal(&format!("{precision:?}: copy of {len}"), Tensor(3));
        }
    }
}
