//! The text of kernels, read by the interpreter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptx_sim::Program;
use records_fuzz::write_seeds;

const DOUBLED: &str = ".version 8.0
.target sm_90
.address_size 64
.visible .entry doubled(.param .u64 values, .param .u32 count)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .f32 %f<3>;
    .reg .b64 %rd<4>;
    .shared .align 4 .b8 tile[128];
    ld.param.u64 %rd1, [values];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %tid.x;
    setp.ge.u32 %p1, %r2, %r1;
    @%p1 bra DONE;
    mul.wide.u32 %rd2, %r2, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.f32 %f1, [%rd3];
    fma.rn.f32 %f2, %f1, 0f40000000, 0f00000000;
    st.global.f32 [%rd3], %f2;
    bar.sync 0;
DONE:
    ret;
}
";

fuzz_target!(init: write_seeds(&[("doubled.ptx", DOUBLED.into())]), |bytes: &[u8]| {
    let Ok(program) = Program::parse(&String::from_utf8_lossy(bytes)) else { return };
    for kernel in program.kernels() {
        let _ = (program.describe(kernel), program.unsupported(kernel));
    }
});
