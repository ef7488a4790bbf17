//! Files of torch.save: archives, and pickles inside a sound archive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use records::exchange::torch::state_dict;
use records_fuzz::write_seeds;

/// CRC-32 as zip archives have it.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    (!crc).to_le_bytes()
}

/// An archive with this pickle and a storage of 16 values.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", &[7; 64][..])] {
        let size = (bytes.len() as u32).to_le_bytes();
        let length = (name.len() as u16).to_le_bytes();
        let fields = [&[0; 8][..], &checksum(bytes), &size, &size, &length, &[0; 2]].concat();
        let at = (file.len() as u32).to_le_bytes();
        directory.extend([b"PK\x01\x02\x14\0\x14\0", &fields[..], &[0; 10], &at, name.as_bytes()].concat());
        file.extend([b"PK\x03\x04\x14\0", &fields[..], name.as_bytes(), bytes].concat());
    }
    let (at, length) = ((file.len() as u32).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    file.extend(directory);
    file.extend([b"PK\x05\x06\0\0\0\0\x02\0\x02\0", &length[..], &at, &[0; 2]].concat());
    file
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut pickle =
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage".to_vec();
    pickle.extend(b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x10tQK\x00K\x04K\x04\x86K\x04K\x01\x86\x89}tRs.");
    assert!(state_dict(&archive(&pickle)).is_ok_and(|dict| dict["w"].0 == [4, 4]));
    vec![("archive", [&[0][..], &archive(&pickle)].concat()), ("pickle", [&[1][..], &pickle].concat())]
}

fuzz_target!(init: write_seeds(&seeds()), |bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let found = if kind % 2 == 0 { state_dict(rest) } else { state_dict(&archive(rest)) };
    for (shape, values) in found.unwrap_or_default().values() {
        assert_eq!(shape.iter().product::<usize>(), values.len());
    }
});
