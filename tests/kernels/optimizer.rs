//! SGD, addition and conversion: the same bits as the CPU's.

use records::device::gpu::Precision;
use records::device::{Element, Primitive, Tensor};

use crate::pair::{Pair, Random, Value};

const LENGTHS: [usize; 8] = [1, 3, 4, 5, 255, 1024, 1025, 5003];

fn sgd(len: usize, gradients: Tensor, copy: Option<Tensor>) -> Primitive {
    let [control, velocity, parameters] = [0, 1, 2].map(Tensor);
    Primitive::Sgd { len, momentum: 0.9, weight_decay: 1e-3, control, gradients, velocity, parameters, copy }
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
        let steps: Vec<Primitive> = (3..6).map(|gradients| sgd(len, Tensor(gradients), None)).collect();
        let outcome = pair.run(&steps, &values);
        outcome.assert_equal(&format!("velocity of {len}"), Tensor(1));
        outcome.assert_equal(&format!("parameters of {len}"), Tensor(2));
    }
}

/// The copy is the new parameters, rounded; writing it changes nothing else. The CPU keeps none, so the kernels run alone.
#[test]
fn sgd_writes_the_rounded_copy() {
    let mut pair = Pair::new(Precision::Bf16);
    for len in LENGTHS {
        let values = operands(&mut Random::new(&format!("sgd {len}")), len);
        let expected = pair.run(&[sgd(len, Tensor(3), None)], &values[..4]);
        let device = &mut *pair.kernels;
        let mut buffers = Vec::new();
        for value in &values[..4] {
            let Value::F32(values) = value else { unreachable!() };
            let buffer = device.allocate(Element::F32, values.len(), "a test operand").unwrap();
            device.write_f32(buffer, values).unwrap();
            buffers.push(buffer);
        }
        buffers.push(device.allocate_all(&[(Element::Bf16, len)], "a test output").unwrap()[0]);
        device.execute(&sgd(len, Tensor(3), Some(Tensor(4))), &buffers).unwrap();
        let [velocity, parameters, copy] = [1, 2, 4].map(|i| device.read_f32(buffers[i]).unwrap());
        assert_eq!(velocity, expected.kernels[1], "velocity of {len}");
        assert_eq!(parameters, expected.kernels[2], "parameters of {len}");
        let rounded: Vec<f32> = parameters.iter().map(|&p| half::bf16::from_f32(p).to_f32()).collect();
        assert_eq!(copy, rounded, "copy of {len}");
    }
}

#[test]
fn addition() {
    let mut pair = Pair::new(Precision::F32);
    for len in LENGTHS {
        let mut random = Random::new(&format!("addition {len}"));
        let mut x = random.normal(len, 1.0);
        x[len / 2] = f32::NAN;
        let values = [Value::F32(x), Value::F32(random.normal(len, 1e3))];
        let add = Primitive::Add { len, x: Tensor(0), into: Tensor(1) };
        let outcome = pair.run(&[add.clone(), add], &values);
        outcome.assert_equal(&format!("{len}"), Tensor(1));
    }
}

/// Ties go to even; the largest f32 becomes infinity in bf16; tiny values and both zeros keep their sign.
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
    ];
    for precision in [Precision::F32, Precision::Bf16] {
        let mut pair = Pair::new(precision);
        for len in LENGTHS {
            let what = format!("{precision:?} {len}");
            let mut from = Random::new(&format!("conversion {what}")).normal(len, 1.0);
            from.iter_mut().zip(special).for_each(|(value, special)| *value = special);
            let values = [Value::F32(from), Value::ActivationOutput(len)];
            let mut outcome =
                pair.run(&[Primitive::Convert { len, from: Tensor(0), to: Tensor(1) }], &values);
            if precision == Precision::Bf16 {
                outcome.cpu[1].iter_mut().for_each(|v| *v = half::bf16::from_f32(*v).to_f32());
            }
            outcome.assert_equal(&what, Tensor(1));
        }
    }
}
