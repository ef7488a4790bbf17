//! CSV files with a header (RFC 4180), read strictly: what a spreadsheet or a script may have spoilt is told with its line
//! instead of being guessed at.

use std::ops::Index;
use std::path::{Path, PathBuf};

use anyhow::Result;
use csv::StringRecord;

use crate::files::read_whole;
use crate::usage;

/// Bytes a text file may have at most.
const MAX_BYTES: u64 = 256 << 20;

/// A CSV file: its header and its rows. The fields of all rows lie one behind the other, so that a file takes little more memory
/// than its bytes, however short its rows are.
pub struct Table {
    path: PathBuf,
    header_line: usize,
    header: StringRecord,
    /// The fields of all rows, as many for each as the header has.
    text: String,
    /// Where each field ends in the text.
    ends: Vec<u32>,
    /// The line of each row, counted from 1.
    lines: Vec<u32>,
}

/// The fields of a row.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    text: &'a str,
    /// Where the row begins in the text.
    start: usize,
    ends: &'a [u32],
}

impl<'a> Row<'a> {
    /// The fields in order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        (0..self.ends.len()).map(move |column| self.field(column))
    }

    fn field(self, column: usize) -> &'a str {
        let start = column.checked_sub(1).map_or(self.start, |before| self.ends[before] as usize);
        &self.text[start..self.ends[column] as usize]
    }
}

impl Index<usize> for Row<'_> {
    type Output = str;

    fn index(&self, column: usize) -> &str {
        self.field(column)
    }
}

impl Table {
    /// Reads a file of at most 256 MiB. Fields are separated by commas; a field with a comma, a quote or a line break stands in
    /// quotes, and quotes inside it are doubled. A byte-order mark, either kind of line end and empty lines are fine.
    ///
    /// # Errors
    /// A usage error with the file, and the line where it applies: it cannot be read, is too large, not UTF-8 or empty,
    /// wrong quotes, a row with another number of fields than the header.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let mut table: Option<Self> = None;
        let mut record = StringRecord::new();
        let (mut start, mut line) = (0, 1);
        while reader.read_record(&mut record).map_err(|error| usage!("{}: {error}", path.display()))? {
            // What was read: line ends left over and empty lines, then the record.
            let end = usize::try_from(reader.position().byte()).unwrap_or(text.len()).min(text.len());
            let raw = text.get(start..end).unwrap_or_default();
            let written = raw.trim_start_matches(['\r', '\n']);
            line += raw[..raw.len() - written.len()].matches('\n').count();
            if !is_written_as(&record, written.trim_end_matches(['\r', '\n'])) {
                return Err(usage!(
                    "{}:{line}: wrong quotes; a field with a comma or a quote must stand in quotes, each quote inside it doubled",
                    path.display()
                ));
            }
            match &mut table {
                None => table = Some(Self::with_header(path, line, std::mem::take(&mut record))),
                Some(table) => table.push(line, &record)?,
            }
            line += written.matches('\n').count();
            start = end;
        }
        table.ok_or_else(|| usage!("{}: is empty; its first line must name the columns", path.display()))
    }

    fn with_header(path: &Path, header_line: usize, header: StringRecord) -> Self {
        let (text, ends, lines) = Default::default();
        Self { path: path.into(), header_line, header, text, ends, lines }
    }

    /// Appends a row.
    fn push(&mut self, line: usize, row: &StringRecord) -> Result<()> {
        let (found, wanted) = (row.len(), self.header.len());
        if found != wanted {
            return Err(usage!(
                "{}:{line}: {found} fields, but the header names {wanted}; put a field with a comma in quotes",
                self.path.display()
            ));
        }
        // Lines and bytes of a file of at most MAX_BYTES.
        self.lines.push(line as u32);
        for field in row {
            self.text.push_str(field);
            self.ends.push(self.text.len() as u32);
        }
        Ok(())
    }

    /// Where in a row the column called `name` stands; `None` where there is no such column. Other columns may have any names.
    ///
    /// # Errors
    /// A usage error where two columns have the name.
    pub fn column(&self, name: &str) -> Result<Option<usize>> {
        let mut found = (0..self.header.len()).filter(|&column| self.header[column].trim() == name);
        let first = found.next();
        match found.next() {
            None => Ok(first),
            Some(_) => Err(usage!("{}: two columns are called {name:?}; rename one", self.header_place())),
        }
    }

    /// As [`Table::column`] for a column that must be there.
    ///
    /// # Errors
    /// A usage error where it is not.
    pub fn required_column(&self, name: &str) -> Result<usize> {
        self.column(name)?.ok_or_else(|| {
            let header: Vec<&str> = self.header.iter().collect();
            usage!(
                "{}: no column {name:?} among {header:?}; the first line must name the columns, separated by commas",
                self.header_place()
            )
        })
    }

    /// File and line of the header.
    fn header_place(&self) -> String {
        format!("{}:{}", self.path.display(), self.header_line)
    }

    /// Line and fields of every row.
    pub fn rows(&self) -> impl Iterator<Item = (usize, Row<'_>)> {
        let columns = self.header.len();
        self.lines.iter().enumerate().map(move |(row, &line)| {
            let first = row * columns;
            let start = first.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
            let ends = &self.ends[first..first + columns];
            (line as usize, Row { text: &self.text, start, ends })
        })
    }
}

/// Whether `written` is how `record` is written. The parser makes something of any text; only where the way back leads to the
/// same text was its reading the right one.
fn is_written_as(record: &StringRecord, written: &str) -> bool {
    let mut rest = Some(written);
    for (i, field) in record.iter().enumerate() {
        rest = rest.and_then(|rest| if i == 0 { Some(rest) } else { rest.strip_prefix(',') });
        rest = rest.and_then(|rest| match rest.strip_prefix('"') {
            Some(quoted) => quoted.strip_prefix(&field.replace('"', "\"\""))?.strip_prefix('"'),
            None if field.contains('"') => None,
            None => rest.strip_prefix(field),
        });
    }
    rest == Some("")
}

/// The text of a file without its byte-order mark.
///
/// # Errors
/// A usage error with the file: it cannot be read, is too large, or is not UTF-8 (with the line).
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = read_whole(path, MAX_BYTES)?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        usage!("{}:{line}: not UTF-8; save the file as UTF-8", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a file with this content, each with its line, or the error without the file's name.
    fn read(content: &[u8]) -> Result<Vec<(usize, Vec<String>)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, content).unwrap();
        let table = Table::read(&path).map_err(|error| {
            let text = error.to_string();
            text.split_once("t.csv").map_or(text.clone(), |(_, rest)| rest.to_string())
        })?;
        Ok(table.rows().map(|(line, row)| (line, row.iter().map(String::from).collect())).collect())
    }

    fn row(line: usize, fields: &[&str]) -> (usize, Vec<String>) {
        (line, fields.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rows_come_with_their_lines() {
        let expected = vec![row(2, &["1", "x"]), row(4, &["2", "y"])];
        for text in ["a,b\n1,x\n\n2,y\n", "a,b\r\n1,x\r\n\r\n2,y", "\u{feff}a,b\n1,\"x\"\n\r\n\"2\",y\n\n\n"]
        {
            assert_eq!(read(text.as_bytes()).unwrap(), expected, "{text:?}");
        }
        // Quotes hold commas, quotes and line breaks; the lines after them are counted right.
        let text = b"\n\"a\",b\n\"1,\"\"2\"\"\",\"two\r\nlines\"\n,\"\"\n";
        assert_eq!(read(text).unwrap(), [row(3, &["1,\"2\"", "two\r\nlines"]), row(5, &["", ""])]);
        assert_eq!(read(b"a\n").unwrap(), []);
    }

    #[test]
    fn what_is_not_csv_is_told_with_its_line() {
        for (text, expected) in [
            (&b""[..], ": is empty"),
            (b"\xef\xbb\xbf\n\r\n", ": is empty"),
            (b"a,b\n1\n", ":2: 1 fields, but the header names 2"),
            (b"a,b\n1,2\n1,2,\n", ":3: 3 fields"),
            (b"a,b\n\n1,\"2\n3,4\n5,6", ":3: wrong quotes"),
            (b"a,b\n1,\"2", ":2: wrong quotes"),
            (b"a,b\n1,2\n\"1\"x,2\n", ":3: wrong quotes"),
            (b"a,b\n1\"x,2\n", ":2: wrong quotes"),
            (b"a,b\n1, \"2\"\n", ":2: wrong quotes"),
            (b"a,b\n1,2\nx,\xff\n", ":3: not UTF-8"),
            (b"\xff\xfea\0,\0b\0", ":1: not UTF-8"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(expected), "{:?}: {error}", String::from_utf8_lossy(text));
        }
        assert!(
            Table::read(Path::new("/nowhere.csv")).is_err_and(|e| e.to_string().contains("cannot be read"))
        );
        assert!(Table::read(Path::new("/")).is_err_and(|e| e.to_string().contains("is a folder")));
    }

    #[test]
    fn columns_are_found_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, "x, path ,x,\n1,2,3,4\n").unwrap();
        let table = Table::read(&path).unwrap();
        assert_eq!((table.column("path").unwrap(), table.column("y").unwrap()), (Some(1), None));
        assert!(table.column("x").is_err_and(|error| error.to_string().contains("two columns")));
        assert!(table.required_column("y").is_err_and(|error| error.to_string().contains("no column \"y\"")));
    }
}
