//! Reads the files under kernels/ and writes what the host must know of them as Rust: the parameters of every kernel as a struct with
//! named fields, and the constants.
//!
//! It understands the forms that kernels/README.md describes and no others; anything else that would matter to the host is an error
//! that names file and line, so that no kernel and no constant can be missed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// What the host must know of a file.
#[derive(Debug, Default)]
pub struct File {
    /// File name without its folder.
    pub name: String,
    /// The headers that it includes.
    pub includes: Vec<String>,
    pub constants: Vec<Constant>,
    /// Structures of plain members by name: kernels may take them by value.
    pub structures: BTreeMap<String, Vec<Parameter>>,
    pub families: Vec<Family>,
}

/// `constexpr int NAME = value;` or `constexpr float NAME = value;`.
#[derive(Debug, PartialEq)]
pub struct Constant {
    pub name: String,
    pub float: bool,
    /// The expression, which means the same in Rust.
    pub value: String,
    pub comment: String,
}

/// Kernels with the same parameters: those that a macro stamps out, or a single one.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// Name of the macro, or of the kernel.
    pub name: String,
    pub parameters: Vec<Parameter>,
    /// The macro's parameters after the first, which is the kernel's name.
    pub columns: Vec<String>,
    /// Name of each kernel, and what stands in the columns.
    pub kernels: Vec<(String, Vec<String>)>,
}

/// A parameter of a kernel, or a member of a structure.
#[derive(Debug, PartialEq)]
pub struct Parameter {
    pub name: String,
    pub kind: Kind,
    /// Type and name as they are written.
    pub text: String,
}

/// Kinds of parameters, in the one order that they may stand in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A structure by value.
    Structure(String),
    /// An `int` that counts, indexes or switches.
    Count,
    /// A `float`.
    Float,
    /// A pointer to what is only read.
    Read,
    /// A pointer to what is written or updated.
    Written,
}

/// Where and why a file is not understood.
pub type Problem = String;

/// Lines of a file without comments; a line that ends in a backslash is joined with the next. With the number of the first line.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut joined = false;
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default().trim_end();
        let (code, continues) = code.strip_suffix('\\').map_or((code, false), |code| (code.trim_end(), true));
        match lines.last_mut() {
            Some((_, last)) if joined => {
                last.push(' ');
                last.push_str(code.trim());
            }
            _ => lines.push((number + 1, code.into())),
        }
        joined = continues;
    }
    lines
}

/// The comment that ends above line `number`, or stands behind the code of that line.
fn comment(text: &str, number: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if let Some((_, behind)) = lines[number - 1].split_once("//") {
        return behind.trim().into();
    }
    let above = lines[..number - 1].iter().rev().map_while(|line| line.strip_prefix("//"));
    let mut above: Vec<&str> = above.map(str::trim).collect();
    above.reverse();
    above.join(" ")
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What stands in the parentheses that `text` begins with, and what follows them.
fn parenthesised(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start().strip_prefix('(')?;
    let mut depth = 1;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

/// A name, and what follows it.
fn name_and_rest(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    is_name(&text[..end]).then(|| text.split_at(end))
}

fn list(text: &str) -> Vec<String> {
    let parts = text.split(',').map(|part| part.trim().to_string());
    parts.filter(|part| !part.is_empty()).collect()
}

/// `int rows`, `float beta`, `const float* x`, `T* y`, `Shape shape`.
fn parameter(text: &str) -> Result<Parameter, Problem> {
    let text = text.replace("__restrict__", " ").replace('*', "* ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let kind = match words[..] {
        ["int", _] => Kind::Count,
        ["float", _] => Kind::Float,
        ["const", pointee, _] if pointee.ends_with('*') => Kind::Read,
        [pointee, _] if pointee.ends_with('*') => Kind::Written,
        [structure, _] if is_name(structure) => Kind::Structure(structure.into()),
        _ => return Err(format!("'{}' is no parameter of a known kind", words.join(" "))),
    };
    let name = words[words.len() - 1];
    if !is_name(name) {
        return Err(format!("'{}' names no parameter", words.join(" ")));
    }
    Ok(Parameter { name: name.into(), kind, text: words.join(" ") })
}

/// Parameters in the one order: structures, counts, floats, what is read, what is written.
fn parameters(text: &str) -> Result<Vec<Parameter>, Problem> {
    let parameters = list(text).iter().map(|text| parameter(text)).collect::<Result<Vec<_>, _>>()?;
    let rank = |parameter: &Parameter| match parameter.kind {
        Kind::Structure(_) => 0,
        Kind::Count => 1,
        Kind::Float => 2,
        Kind::Read => 3,
        Kind::Written => 4,
    };
    match parameters.windows(2).find(|pair| rank(&pair[0]) > rank(&pair[1])) {
        None => Ok(parameters),
        Some(pair) => Err(format!(
            "'{}' stands before '{}': the order is structures, int, float, const pointers, other pointers",
            pair[0].text, pair[1].text
        )),
    }
}

/// `extern "C" __global__ void __launch_bounds__(...) name(parameters) {`: name and parameters.
fn signature(text: &str) -> Result<(String, Vec<Parameter>), Problem> {
    let parse = || {
        let rest = text.trim_start().strip_prefix("extern \"C\" __global__ void ")?.trim_start();
        let rest = match rest.strip_prefix("__launch_bounds__") {
            Some(bounds) => parenthesised(bounds)?.1,
            None => rest,
        };
        let (name, rest) = name_and_rest(rest)?;
        Some((name, parenthesised(rest)?.0))
    };
    let (name, list) = parse().ok_or("a kernel is: extern \"C\" __global__ void name(parameters) {")?;
    Ok((name.into(), parameters(list)?))
}

/// `constexpr int NAME = value;`
fn constant(line: &str, comment: String) -> Result<Constant, Problem> {
    let parse = || {
        let (declared, value) = line.strip_prefix("constexpr ")?.strip_suffix(';')?.split_once('=')?;
        let (kind, name) = declared.trim().split_once(' ')?;
        let float = match kind {
            "int" => false,
            "float" => true,
            _ => return None,
        };
        let value = value.trim();
        let value = if float { value.strip_suffix('f')? } else { value };
        let plain = |c: char| c.is_ascii_alphanumeric() || " _+-*/()<.".contains(c);
        (is_name(name) && value.chars().all(plain)).then(|| Constant {
            name: name.into(),
            float,
            value: value.into(),
            comment,
        })
    };
    parse().ok_or_else(|| {
        "a constant is: constexpr int NAME = expression; or constexpr float NAME = 1.0f;".into()
    })
}

/// The members of a structure that has nothing but plain ones.
fn members(body: &str) -> Option<Vec<Parameter>> {
    let statements = body.split(';').map(str::trim).filter(|statement| !statement.is_empty());
    let mut all = String::new();
    for statement in statements {
        let (first, others) = statement.split_once(',').unwrap_or((statement, ""));
        let (kind, _) = first.rsplit_once(' ')?;
        let _ = write!(all, "{first},");
        others.split_terminator(',').for_each(|name| all.push_str(&format!("{kind} {name},")));
    }
    let members = parameters(&all).ok()?;
    let plain = |member: &Parameter| !matches!(member.kind, Kind::Structure(_));
    members.iter().all(plain).then_some(members)
}

/// Reads a file.
///
/// # Errors
/// File, line and what is not understood there.
pub fn read(name: &str, text: &str) -> Result<File, Problem> {
    let mut file = File { name: name.into(), ..File::default() };
    let lines = lines(text);
    let mut at = 0;
    while let Some((number, line)) = lines.get(at) {
        let located = |problem: Problem| format!("kernels/{name}:{number}: {problem}");
        // What begins here, up to and with the first line that ends it.
        let until = |end: &str| {
            let whole = lines[at..].iter().position(|(_, line)| line.contains(end));
            let count = whole.map_or(lines.len() - at, |last| last + 1);
            (lines[at..at + count].iter().map(|(_, line)| line.trim()).collect::<Vec<_>>().join(" "), count)
        };
        let (item, count) = if line.starts_with("extern") {
            until("{")
        } else if line.starts_with("struct ") && line.ends_with('{') {
            until("};")
        } else if line.starts_with(|c: char| c.is_ascii_uppercase()) || line.starts_with("constexpr") {
            until(if line.starts_with("constexpr") { ";" } else { ")" })
        } else {
            (line.clone(), 1)
        };
        file.take(&item, || comment(text, *number)).map_err(located)?;
        at += count;
    }
    Ok(file)
}

impl File {
    /// Takes in what stands at the outermost level of a file.
    fn take(&mut self, item: &str, comment: impl Fn() -> String) -> Result<(), Problem> {
        if let Some(rest) = item.strip_prefix("#include \"") {
            self.includes.push(rest.trim_end_matches('"').into());
        } else if let Some(rest) = item.strip_prefix("#define ") {
            self.families.push(macro_of_kernels(rest)?);
        } else if item.starts_with("constexpr ") {
            self.constants.push(constant(item, comment())?);
        } else if item.starts_with("static const") {
            return Err("a constant is: constexpr int NAME = expression;".into());
        } else if item.starts_with("extern") {
            let (name, parameters) = signature(item)?;
            let kernels = vec![(name.clone(), Vec::new())];
            self.families.push(Family { name, parameters, columns: Vec::new(), kernels });
        } else if let Some(rest) = item.strip_prefix("struct ") {
            if let Some((name, body)) = rest.split_once('{')
                && let Some(members) = body.trim_end().strip_suffix("};").and_then(members)
            {
                self.structures.insert(name.trim().into(), members);
            }
        } else if item.starts_with(|c: char| c.is_ascii_uppercase()) {
            self.stamp(item)?;
        } else if item.contains("__global__") {
            return Err("a kernel is: extern \"C\" __global__ void name(parameters) {".into());
        }
        Ok(())
    }

    /// `MACRO(kernel, ...)`
    fn stamp(&mut self, item: &str) -> Result<(), Problem> {
        let parse = || {
            let (name, rest) = name_and_rest(item)?;
            let (arguments, rest) = parenthesised(rest)?;
            rest.trim().is_empty().then(|| (name, list(arguments)))
        };
        let (name, arguments) = parse().ok_or("a kernel is stamped out by: MACRO(kernel, ...)")?;
        let family = self.families.iter_mut().find(|family| family.name == name);
        let family = family.ok_or_else(|| format!("no macro {name} of this file stamps out kernels"))?;
        match arguments.split_first() {
            Some((kernel, values)) if values.len() == family.columns.len() => {
                family.kernels.push((kernel.clone(), values.to_vec()));
                Ok(())
            }
            _ => Err(format!("{name} has {} parameters", family.columns.len() + 1)),
        }
    }
}

/// `NAME(KERNEL, ...) extern "C" __global__ void __launch_bounds__(...) KERNEL(parameters) {`
fn macro_of_kernels(text: &str) -> Result<Family, Problem> {
    let parse = || {
        let (name, rest) = name_and_rest(text)?;
        let (names, body) = if rest.starts_with('(') { parenthesised(rest)? } else { return None };
        body.contains("__global__").then(|| (name, list(names), body))
    };
    let (name, mut names, body) = parse()
        .ok_or("a macro stamps out kernels, #define NAME(KERNEL, ...) extern \"C\" __global__ ..; a constant is a constexpr")?;
    let (kernel, parameters) = signature(body)?;
    if names.first() != Some(&kernel) {
        return Err(format!("the first parameter of {name} is to be the kernel's name, {kernel}"));
    }
    Ok(Family { name: name.into(), parameters, columns: names.split_off(1), kernels: Vec::new() })
}

/// The files of a folder as the program has them.
///
/// # Errors
/// A file that cannot be read or is not understood.
pub fn read_folder(folder: &Path) -> Result<Vec<(File, String)>, Problem> {
    let shown = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(shown)? {
        let path = entry.map_err(shown)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".cu") || name.ends_with(".cuh") {
            let text = std::fs::read_to_string(&path).map_err(shown)?;
            files.push((read(name, &text)?, path.display().to_string()));
        }
    }
    files.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Ok(files)
}

/// `average_pool` or `AVERAGE_POOL` as `AveragePool`.
fn camel(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_ascii_uppercase().to_string() + &letters.as_str().to_ascii_lowercase()
        })
    };
    name.split('_').map(word).collect()
}

fn stem(file: &str) -> &str {
    file.split('.').next().unwrap_or(file)
}

/// The Rust text for all files, each a module named as the file.
///
/// # Errors
/// A structure that no file has.
pub fn generate(files: &[(File, String)]) -> Result<String, Problem> {
    let mut text = String::new();
    for (file, path) in files {
        module(&mut text, file, path, files)?;
    }
    let of_kind = |ending: &'static str| files.iter().filter(move |(file, _)| file.name.ends_with(ending));
    for (name, about, ending) in
        [("HEADERS", "What the kernels include.", ".cuh"), ("KERNELS", "Every file of kernels.", ".cu")]
    {
        let _ = writeln!(text, "/// {about}\npub const {name}: &[&Source] = &[");
        of_kind(ending).for_each(|(file, _)| {
            let _ = writeln!(text, "    {}::SOURCE,", stem(&file.name));
        });
        text.push_str("];\n");
    }
    text.push_str(
        "/// Every kernel, with its parameters' kinds.\npub const SIGNATURES: &[(Kernel, &[Kind])] = &[\n",
    );
    for (file, _) in files {
        for family in &file.families {
            for (kernel, _) in &family.kernels {
                let constant = format!("{}::{}", stem(&file.name), kernel.to_ascii_uppercase());
                let _ = writeln!(text, "    ({constant}.kernel, {}),", kinds(&family.parameters, files)?);
            }
        }
    }
    text.push_str(
        "];\n/// Every constant: file, name, value.\npub const CONSTANTS: &[(&str, &str, f64)] = &[\n",
    );
    for (file, _) in files {
        for Constant { name, .. } in &file.constants {
            let _ = writeln!(text, "    ({:?}, {name:?}, {}::{name} as f64),", file.name, stem(&file.name));
        }
    }
    text.push_str("];\n");
    Ok(text)
}

fn find<'a>(structure: &str, files: &'a [(File, String)]) -> Result<&'a [Parameter], Problem> {
    let found = files.iter().find_map(|(file, _)| file.structures.get(structure));
    found.map(Vec::as_slice).ok_or_else(|| {
        format!("no file has a structure {structure} of plain members in the order of parameters, which a kernel takes")
    })
}

/// The kinds of parameters as an expression.
fn kinds(parameters: &[Parameter], files: &[(File, String)]) -> Result<String, Problem> {
    let mut text = String::from("&[");
    for parameter in parameters {
        match &parameter.kind {
            Kind::Count => text.push_str("Kind::Count, "),
            Kind::Float => text.push_str("Kind::Float, "),
            Kind::Read | Kind::Written => text.push_str("Kind::Pointer, "),
            Kind::Structure(name) => {
                let _ = write!(text, "Kind::Structure({}), ", kinds(find(name, files)?, files)?);
            }
        }
    }
    Ok(text + "]")
}

/// The module of a file.
fn module(text: &mut String, file: &File, path: &str, files: &[(File, String)]) -> Result<(), Problem> {
    let _ = writeln!(
        text,
        "/// What the host must know of kernels/{}.\npub mod {} {{",
        file.name,
        stem(&file.name)
    );
    text.push_str("    #![allow(unused_imports)]\n    use super::{Address, Arguments, Kernel, KernelOf, Parameters, Source, Structure};\n");
    for include in &file.includes {
        let _ = writeln!(text, "    pub use super::{}::*;", stem(include));
    }
    let _ = writeln!(
        text,
        "    /// The file.\n    pub const SOURCE: &Source = &Source {{ name: {:?}, text: include_str!({path:?}) }};",
        file.name
    );
    for Constant { name, float, value, comment } in &file.constants {
        let kind = if *float { "f32" } else { "usize" };
        let comment = if comment.is_empty() { "As the kernels have it." } else { comment };
        let _ = writeln!(text, "    #[doc = {comment:?}]\n    pub const {name}: {kind} = {value};");
    }
    for (name, members) in &file.structures {
        let taken = |parameter: &Parameter| parameter.kind == Kind::Structure(name.clone());
        if files
            .iter()
            .any(|(file, _)| file.families.iter().any(|family| family.parameters.iter().any(taken)))
        {
            structure(
                text,
                ["Structure", "members"],
                name,
                &format!("`{name}` of kernels/{}, by value.", file.name),
                members,
            );
        }
    }
    for family in &file.families {
        kernels(text, family, &file.name)?;
    }
    text.push_str("}\n");
    Ok(())
}

/// The struct of some parameters, which packs itself: as `Parameters` by `pack`, or as a `Structure` by `members`.
fn structure(text: &mut String, [packs, by]: [&str; 2], name: &str, about: &str, parameters: &[Parameter]) {
    let _ = writeln!(text, "    /// {about}\n    #[derive(Clone, Copy, Debug)]\n    pub struct {name} {{");
    for Parameter { name, kind, text: written } in parameters {
        let rust = match kind {
            Kind::Structure(name) => name,
            Kind::Count => "usize",
            Kind::Float => "f32",
            Kind::Read | Kind::Written => "Address",
        };
        let _ = writeln!(text, "        /// `{written}`\n        pub {name}: {rust},");
    }
    let _ = writeln!(
        text,
        "    }}\n    impl {packs} for {name} {{\n        fn {by}(self) -> Arguments {{\n            Arguments::new()"
    );
    for Parameter { name, kind, .. } in parameters {
        let call = match kind {
            Kind::Structure(_) => "structure",
            Kind::Count => "count",
            Kind::Float => "float",
            Kind::Read | Kind::Written => "pointer",
        };
        let _ = writeln!(text, "                .{call}(self.{name})");
    }
    text.push_str("        }\n    }\n");
}

/// The struct of a family's parameters, and its kernels.
fn kernels(text: &mut String, family: &Family, file: &str) -> Result<(), Problem> {
    let names: Vec<String> = family.kernels.iter().map(|(name, _)| format!("`{name}`")).collect();
    let struct_name = match &family.parameters[..] {
        [Parameter { kind: Kind::Structure(name), .. }] => name.clone(),
        parameters => {
            let name = camel(&family.name);
            structure(
                text,
                ["Parameters", "pack"],
                &name,
                &format!("Parameters of {} of kernels/{file}.", names.join(", ")),
                parameters,
            );
            name
        }
    };
    for (name, _) in &family.kernels {
        let constant = name.to_ascii_uppercase();
        let _ = writeln!(
            text,
            "    /// The kernel `{name}`.\n    pub const {constant}: KernelOf<{struct_name}> = KernelOf::new(SOURCE, {name:?});"
        );
    }
    table(text, family, &struct_name);
    Ok(())
}

/// A macro whose arguments are all numbers, but for a type `T`: a table of its kernels with these.
fn table(text: &mut String, family: &Family, struct_name: &str) {
    let is_type = |column: &String| column == "T";
    let numbers = |values: &Vec<String>| {
        let mut pairs = family.columns.iter().zip(values);
        pairs.all(|(column, value)| is_type(column) || value.parse::<usize>().is_ok())
    };
    if family.columns.iter().all(is_type) || !family.kernels.iter().all(|(_, values)| numbers(values)) {
        return;
    }
    let (name, row) = (&family.name, format!("{}Kernel", camel(&family.name)));
    let _ = writeln!(
        text,
        "    /// A kernel that `{name}` stamps out, and what it is stamped with.\n    #[derive(Clone, Copy, Debug)]\n    pub struct {row} {{\n        /// The kernel.\n        pub kernel: KernelOf<{struct_name}>,"
    );
    for column in &family.columns {
        let kind = if is_type(column) { "&'static str" } else { "usize" };
        let _ =
            writeln!(text, "        /// `{column}`\n        pub {}: {kind},", column.to_ascii_lowercase());
    }
    let _ = writeln!(
        text,
        "    }}\n    /// The kernels that `{name}` stamps out.\n    pub const {name}: [{row}; {}] = [",
        family.kernels.len()
    );
    for (kernel, values) in &family.kernels {
        let _ = write!(text, "        {row} {{ kernel: {}, ", kernel.to_ascii_uppercase());
        for (column, value) in family.columns.iter().zip(values) {
            let value = if is_type(column) { format!("{value:?}") } else { value.clone() };
            let _ = write!(text, "{}: {value}, ", column.to_ascii_lowercase());
        }
        text.push_str("},\n");
    }
    text.push_str("    ];\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        read("a.cu", text).unwrap_err()
    }

    #[test]
    fn a_kernel_is_read_with_its_parameters_by_kind() {
        let text = "// Pools.\nextern \"C\" __global__ void __launch_bounds__(32 * (WARPS + 1), 2)\n    pool(Shape shape, int n,\n         float beta, const bf16* __restrict__ x, u8* y) {\n}\n";
        let file = read("a.cu", text).unwrap();
        let [family] = &file.families[..] else { panic!("{file:?}") };
        assert_eq!((family.name.as_str(), family.kernels.len()), ("pool", 1));
        let kinds: Vec<_> = family.parameters.iter().map(|p| (p.name.as_str(), p.kind.clone())).collect();
        let shape = Kind::Structure("Shape".into());
        let expected = [
            ("shape", shape),
            ("n", Kind::Count),
            ("beta", Kind::Float),
            ("x", Kind::Read),
            ("y", Kind::Written),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(family.parameters[3].text, "const bf16* x");
    }

    #[test]
    fn a_macro_stamps_out_kernels_of_one_signature() {
        let text = "#define ROWS(NAME, T, M)  \\\n    extern \"C\" __global__ void NAME(int n, const T* x) { f<T>(n, x); }\n\nROWS(rows_a, bf16, 3)\nROWS(rows_b, float,\n     4)\n";
        let file = read("a.cu", text).unwrap();
        let [family] = &file.families[..] else { panic!("{file:?}") };
        assert_eq!(family.columns, ["T", "M"]);
        let row = |name: &str, values: [&str; 2]| (name.to_string(), values.map(String::from).to_vec());
        assert_eq!(family.kernels, [row("rows_a", ["bf16", "3"]), row("rows_b", ["float", "4"])]);
        assert!(
            problem(&(text.to_string() + "ROWS(rows_c, int)\n")).contains("a.cu:7: ROWS has 3 parameters")
        );
        assert!(problem(&(text.to_string() + "COLUMNS(c, 1)\n")).contains("a.cu:7: no macro COLUMNS"));
    }

    #[test]
    fn constants_are_read_with_their_comment() {
        let text = "// Threads of\n// a block.\nconstexpr int THREADS = 32 * WARPS;\nconstexpr float EPSILON = 1e-9f;  // of logarithms\n";
        let file = read("a.cuh", text).unwrap();
        let constant = |name: &str, float, value: &str, comment: &str| {
            let [name, value, comment] = [name, value, comment].map(String::from);
            Constant { name, float, value, comment }
        };
        let expected = [
            constant("THREADS", false, "32 * WARPS", "Threads of a block."),
            constant("EPSILON", true, "1e-9", "of logarithms"),
        ];
        assert_eq!(file.constants, expected);
    }

    #[test]
    fn only_structures_of_plain_members_in_order_can_be_taken() {
        let text = "struct Shape {\n    int batch, height;  // first\n    const float* x;\n    u8* z;\n};\nstruct Odd {\n    float* z;\n    int n;\n};\nstruct Other {\n    int f() { return 1; }\n};\n";
        let file = read("a.cuh", text).unwrap();
        assert_eq!(file.structures.keys().collect::<Vec<_>>(), ["Shape"]);
        let members: Vec<_> = file.structures["Shape"].iter().map(|m| (m.name.as_str(), &m.kind)).collect();
        use Kind::{Count, Read, Written};
        let expected = [("batch", &Count), ("height", &Count), ("x", &Read), ("z", &Written)];
        assert_eq!(members, expected);
    }

    #[test]
    fn what_is_not_understood_is_an_error_at_its_line() {
        for (text, expected) in [
            ("\n#define THREADS 256\n", "kernels/a.cu:2: a macro stamps out kernels"),
            ("\n\nstatic const int A = 1;\n", "kernels/a.cu:3: a constant is"),
            ("constexpr int A = sizeof(B[3]);\n", "kernels/a.cu:1: a constant is"),
            ("constexpr double A = 1.0;\n", "kernels/a.cu:1: a constant is"),
            ("__global__ void f(int n) {\n", "kernels/a.cu:1: a kernel is"),
            (
                "extern \"C\" __global__ void f(const float* x, int n) {\n",
                "'const float* x' stands before 'int n'",
            ),
            ("extern \"C\" __global__ void f(float* y, const float* x) {\n", "'float* y' stands before"),
            ("extern \"C\" __global__ void f(unsigned long n) {\n", "'unsigned long n' is no parameter"),
            ("extern \"C\" __global__ void f(float (&x)[2]) {\n", "names no parameter"),
        ] {
            let problem = problem(text);
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn a_structure_that_no_file_has_is_an_error() {
        let file = read("a.cu", "extern \"C\" __global__ void f(Shape shape, int n) {\n").unwrap();
        assert!(generate(&[(file, String::new())]).unwrap_err().contains("no file has a structure Shape"));
    }
}
