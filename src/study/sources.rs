//! The sources of the rungs, compiled into the program; none includes another file.

use crate::device::gpu::sources::Source;

macro_rules! rungs {
    ($($name:ident = $file:literal;)*) => {
        $(
            #[doc = concat!("`kernels/study/", $file, "`.")]
            pub static $name: Source =
                Source { name: $file, text: include_str!(concat!("../../kernels/study/", $file)) };
        )*

        /// All of them.
        pub static ALL: &[&Source] = &[$(&$name),*];
    };
}

rungs! {
    CONVOLUTION_1 = "convolution_1_naive.cu";
    CONVOLUTION_2 = "convolution_2_shared.cu";
    CONVOLUTION_3 = "convolution_3_tensor_cores.cu";
    CONVOLUTION_4 = "convolution_4_pipelined.cu";
    LOSS_ROW_1 = "loss_row_1_thread.cu";
    LOSS_ROW_2 = "loss_row_2_warp.cu";
    LOSS_ROW_3 = "loss_row_3_fused.cu";
}
