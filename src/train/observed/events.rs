//! The results of a run as TensorBoard reads them: a file of records, each an Event message.
//!
//! A record is a length (8 bytes), the masked CRC-32C of the length, the message, and the message's masked
//! CRC-32C (TensorFlow's TFRecord format). An Event has wall time 1 (f64), step 2, file version 3 or summary
//! 5; a summary has values 1, each with tag 1 and simple value 2 (f32) (event.proto, summary.proto).
//!
//! The wall time of an event is its epoch's number in seconds and not the time of day: the file is then the
//! same after a kill and a resume, and a TensorBoard that is reading it reads on. Real times are in the file
//! of wall times.

use crate::protobuf::Message;
use crate::train::metrics::EpochMetrics;

/// The name of the file; TensorBoard takes files whose names hold `tfevents`.
pub const NAME: &str = "events.out.tfevents.0.records";

/// Appends a record.
fn record(file: &mut Vec<u8>, message: &[u8]) {
    // Rotated and shifted, so that the CRC of data that hold CRCs is sound.
    let masked =
        |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (message.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(&length));
    file.extend(message);
    file.extend(masked(message));
}

/// The record that every file begins with.
pub fn header() -> Vec<u8> {
    let mut file = Vec::new();
    record(&mut file, &Message::default().double(1, 0.0).text(3, "brain.Event:2").into_bytes());
    file
}

/// The tags and values of an epoch; the first four tags are the reference's.
fn scalars(metrics: &EpochMetrics) -> Vec<(&'static str, f64)> {
    let test = metrics.test.as_ref();
    let values = [
        ("Train Acc", metrics.train_accuracy),
        ("Classification Loss", Some(metrics.loss)),
        ("Top1 Acc", test.map(|test| test.top1)),
        ("Top5 Acc", test.and_then(|test| test.top5)),
        ("Many Acc", test.and_then(|test| test.many)),
        ("Medium Acc", test.and_then(|test| test.medium)),
        ("Few Acc", test.and_then(|test| test.few)),
        ("Label Acc", metrics.label_accuracy),
        ("Mean Max Confidence", Some(metrics.mean_max_confidence)),
        ("Prior Distance", metrics.prior_distance),
        ("Learning Rate", Some(metrics.learning_rate)),
        ("Chosen Samples", metrics.chosen),
        ("Steps Left Out", metrics.steps_left_out.map(|steps| steps as f64)),
    ];
    values.into_iter().filter_map(|(tag, value)| Some((tag, value?))).collect()
}

/// The record of an epoch.
pub fn epoch(metrics: &EpochMetrics) -> Vec<u8> {
    let value = |(tag, value): (&str, f64)| Message::default().text(1, tag).float(2, value as f32);
    let values: Vec<Message> = scalars(metrics).into_iter().map(value).collect();
    let event = Message::default()
        .double(1, metrics.epoch as f64)
        .integer(2, metrics.epoch as u64)
        .message(5, &Message::default().messages(1, &values));
    let mut file = Vec::new();
    record(&mut file, &event.into_bytes());
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C of 32 zeros is 0x8a9136aa (RFC 3720); the masking is TensorFlow's.
    #[test]
    fn a_record_has_its_checksums() {
        let mut file = Vec::new();
        record(&mut file, &[0; 32]);
        assert_eq!(file.len(), 8 + 4 + 32 + 4);
        assert_eq!(file[..8], 32u64.to_le_bytes());
        let masked = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(file[44..], masked.to_le_bytes());
    }
}
