//! Functions and files stay readable.

use crate::{
    Tested,
    source::{Source, Unreadable, read_all, read_src},
};

/// Lines of a function outside tests, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 60;
/// Lines of a file, with its tests.
const FILE_LINES: usize = 500;

/// What is too long, one line each.
fn violations(source: &Source) -> Vec<String> {
    let file = &source.file;
    let mut wrong = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES {
        wrong.push(format!("{file}: {lines} lines, at most {FILE_LINES}: split it by idea"));
    }
    for function in &source.functions {
        let (first, last) = (*function.lines.start(), *function.lines.end());
        let (lines, name) = (last - first + 1, &function.name);
        if lines > FUNCTION_LINES && !source.is_test_line(first) {
            wrong.push(format!("{file}:{first}: {name} has {lines} lines, at most {FUNCTION_LINES}"));
        }
    }
    wrong
}

#[test]
fn no_file_and_no_function_is_too_long() -> Tested {
    let wrong: Vec<String> = read_src()?.iter().flat_map(violations).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

fn check(file: &str, text: &str) -> Result<Vec<String>, Unreadable> {
    Ok(read_all([(file, text)])?.iter().flat_map(violations).collect())
}

/// A function of this many lines.
fn long(lines: usize) -> String {
    format!("fn long() {{\n{}}}\n", "    f();\n".repeat(lines - 2))
}

#[test]
fn a_long_function_is_found_wherever_it_stands() -> Result<(), Unreadable> {
    let function = long(FUNCTION_LINES + 1);
    for text in [function.clone(), format!("impl A {{\n{function}}}\n"), format!("mod a {{\n{function}}}\n")] {
        assert_eq!(check("src/core/a.rs", &text)?.len(), 1, "{text}");
    }
    assert_eq!(check("src/core/a.rs", &format!("\n{function}"))?, ["src/core/a.rs:2: long has 61 lines, at most 60"]);
    Ok(())
}

#[test]
fn a_function_that_is_just_long_enough_or_a_test_is_let_through() -> Result<(), Unreadable> {
    let function = long(FUNCTION_LINES + 1);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{function}}}\n");
    let no_body = format!("trait A {{\nfn f();\n{}}}\n", "const A: u8;\n".repeat(FUNCTION_LINES));
    for text in [long(FUNCTION_LINES), tests, no_body] {
        assert_eq!(check("src/core/a.rs", &text)?, Vec::<String>::new(), "{text}");
    }
    assert_eq!(check("src/core/a_tests.rs", &function)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_long_file_is_found_with_its_tests() -> Result<(), Unreadable> {
    let text = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(FILE_LINES - 3));
    assert_eq!(check("src/core/a.rs", &text)?, Vec::<String>::new());
    assert_eq!(check("src/core/a.rs", &format!("\n{text}"))?.len(), 1);
    Ok(())
}
