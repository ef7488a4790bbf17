//! Runs hand-written PTX in tests.
#![allow(dead_code)]

use ptx_sim::{Finding, FindingKind, Launch, Machine, Program, Report, Settings};

pub const HEAD: &str = ".version 7.0\n.target sm_80\n.address_size 64\n";

/// One kernel `k` with pointer parameters p0, p1..., loaded into %p0, %p1... as global addresses, and
/// registers of each kind: %r (b32), %f (f32), %d (b64), %e (f64), %h (b16), %q (predicates), 40 of each; %t
/// is tid.x and %g the global thread.
pub fn kernel(pointers: usize, declarations: &str, body: &str) -> String {
    let params: Vec<_> = (0..pointers).map(|at| format!(".param .u64 p{at}")).collect();
    let loads: String = (0..pointers)
        .map(|at| format!("ld.param.u64 %p{at}, [p{at}];\ncvta.to.global.u64 %p{at}, %p{at};\n"))
        .collect();
    format!(
        "{HEAD}.visible .entry k({}) {{\n\
         .reg .b32 %r<40>;\n.reg .f32 %f<40>;\n.reg .b64 %d<40>;\n.reg .f64 %e<40>;\n.reg .b16 %h<40>;\n\
         .reg .pred %q<40>;\n.reg .b64 %p<8>;\n.reg .b32 %t, %g;\n{declarations}\n\
         mov.u32 %t, %tid.x;\nmov.u32 %r39, %ctaid.x;\nmov.u32 %r38, %ntid.x;\nmad.lo.s32 %g, %r39, %r38, %t;\n\
         {loads}{body}\nret;\n}}\n",
        params.join(", ")
    )
}

/// `d` = address of element `index` (a 32-bit register) of `size` bytes behind pointer `pointer`.
pub fn element(d: &str, pointer: &str, index: &str, size: u32) -> String {
    format!("mul.wide.u32 {d}, {index}, {size};\nadd.s64 {d}, {pointer}, {d};\n")
}

pub struct Run {
    pub settings: Settings,
    pub grid: u32,
    pub block: u32,
    pub shared: u32,
    pub cooperative: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self { settings: Settings::default(), grid: 1, block: 32, shared: 0, cooperative: false }
    }
}

/// A buffer: what it holds before, or how long it is without having been written.
pub enum Buffer {
    Bytes(Vec<u8>),
    Unwritten(usize),
}

pub fn words(values: impl IntoIterator<Item = u32>) -> Buffer {
    Buffer::Bytes(values.into_iter().flat_map(u32::to_le_bytes).collect())
}

pub fn longs(values: impl IntoIterator<Item = u64>) -> Buffer {
    Buffer::Bytes(values.into_iter().flat_map(u64::to_le_bytes).collect())
}

pub fn as_words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

pub fn as_longs(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

impl Run {
    /// Runs kernel `k`; what the buffers hold afterwards, and the report.
    pub fn run(&self, ptx: &str, buffers: &[Buffer]) -> (Vec<Vec<u8>>, Report) {
        let program = Program::parse(ptx).unwrap_or_else(|error| panic!("{error}\n{}", numbered(ptx)));
        let mut machine = Machine::new(self.settings.clone());
        let mut places = Vec::new();
        for (index, buffer) in buffers.iter().enumerate() {
            let label = format!("buffer {index}");
            let len = match buffer {
                Buffer::Bytes(bytes) => bytes.len(),
                Buffer::Unwritten(len) => *len,
            };
            let address = machine.allocate(len, &label);
            if let Buffer::Bytes(bytes) = buffer {
                machine.write(address, bytes).unwrap();
            }
            places.push((address, len));
        }
        let arguments: Vec<u8> = places.iter().flat_map(|(address, _)| address.to_le_bytes()).collect();
        let launch = Launch {
            grid: [self.grid, 1, 1],
            block: [self.block, 1, 1],
            shared_bytes: self.shared,
            cooperative: self.cooperative,
            arguments: &arguments,
        };
        let report = machine.launch(&program, "k", &launch).unwrap();
        let contents = places
            .iter()
            .map(|(address, len)| {
                let mut bytes = vec![0; *len];
                machine.read(*address, &mut bytes).unwrap();
                bytes
            })
            .collect();
        (contents, report)
    }

    /// The same for a kernel that must have no finding.
    pub fn clean(&self, ptx: &str, buffers: &[Buffer]) -> Vec<Vec<u8>> {
        let (contents, report) = self.run(ptx, buffers);
        assert_clean(&report);
        contents
    }
}

/// Runs an instruction of {d} and {a} {b} {c} for every input, whose number is a multiple of 256. Kinds: w
/// 32-bit, d 64-bit, h 16-bit.
pub fn execute(instruction: &str, kinds: &str, inputs: &[[u64; 3]]) -> Vec<u64> {
    let mut letters = kinds.chars();
    let result = letters.next().unwrap();
    let mut body = String::new();
    body += &element("%d0", "%p0", "%g", 24);
    let name = |kind: char, number: u32| match kind {
        'w' => format!("%r{number}"),
        'd' => format!("%d{}", number + 10),
        'h' => format!("%h{number}"),
        'p' => format!("%q{number}"),
        other => panic!("kind {other}"),
    };
    let mut text = instruction.replace("{d}", &name(result, 0));
    for (at, kind) in letters.enumerate() {
        let register = name(kind, at as u32 + 1);
        let width = match kind {
            'w' => "b32",
            'd' => "b64",
            'h' => "b16",
            _ => {
                body += &format!("ld.global.b32 %r20, [%d0+{}];\nand.b32 %r20, %r20, 1;\n", 8 * at);
                body += &format!("setp.ne.u32 {register}, %r20, 0;\n");
                text = text.replace(["{a}", "{b}", "{c}"][at], &register);
                continue;
            }
        };
        body += &format!("ld.global.{width} {register}, [%d0+{}];\n", 8 * at);
        text = text.replace(["{a}", "{b}", "{c}"][at], &register);
    }
    body += &format!("{text}\n");
    body += &element("%d1", "%p1", "%g", 8);
    body += match result {
        'w' => "cvt.u64.u32 %d2, %r0;\n",
        'h' => "cvt.u64.u16 %d2, %h0;\n",
        'p' => "selp.b64 %d2, 1, 0, %q0;\n",
        _ => "mov.b64 %d2, %d10;\n",
    };
    body += "st.global.u64 [%d1], %d2;\n";
    let run = Run { grid: inputs.len() as u32 / 256, block: 256, ..Run::default() };
    let out = run.clean(
        &kernel(2, "", &body),
        &[longs(inputs.iter().flatten().copied()), Buffer::Unwritten(8 * inputs.len())],
    );
    as_longs(&out[1])
}

fn numbered(text: &str) -> String {
    text.lines().enumerate().map(|(at, line)| format!("{:4} {line}\n", at + 1)).collect()
}

pub fn assert_clean(report: &Report) {
    let list: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(report.findings_total, 0, "{}", list.join("\n"));
}

/// The one kind of finding a run must have.
pub fn only(report: &Report, kind: FindingKind) -> &Finding {
    let list: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(!list.is_empty(), "no finding where {kind} was planted");
    assert!(report.findings.iter().all(|finding| finding.kind == kind), "{}", list.join("\n"));
    &report.findings[0]
}

/// The line of the PTX that contains a text, counted from 1.
pub fn line_of(ptx: &str, text: &str) -> u32 {
    ptx.lines().position(|line| line.contains(text)).unwrap() as u32 + 1
}

/// A simple generator, so that tables need no seed files.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ x >> 31
    }
}
