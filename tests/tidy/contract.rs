//! Rules that compare code and documents: guards, parameters, options.

use crate::tree::Tree;

/// The names in `guard!("name", …)` and `guard!(name, …)` of a text.
fn guard_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (_, line) in crate::tree::program_lines(text) {
        if line.trim_start().starts_with("//") {
            continue;
        }
        for rest in line.split("guard!(").skip(1) {
            let name: String = rest
                .trim_start_matches('"')
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                .collect();
            if !name.is_empty() {
                names.push(name);
            }
        }
    }
    names
}

/// Guards without a case in the sabotage tests. At least twelve must exist.
pub(crate) fn guards(tree: &Tree) -> Vec<String> {
    let mut names: Vec<String> = tree
        .rust()
        .filter(|f| f.path.starts_with("multicast/src") || f.path.starts_with("imager/src"))
        .flat_map(|f| guard_names(&f.text))
        .collect();
    names.sort();
    names.dedup();
    let cases: String = tree
        .rust()
        .filter(|f| f.path.starts_with("tests/sabotage"))
        .map(|f| f.text.as_str())
        .collect();
    let mut bad: Vec<String> = names
        .iter()
        .filter(|name| !cases.contains(&format!("\"{name}\"")))
        .map(|name| format!("guard {name} has no case in tests/sabotage.rs"))
        .collect();
    if names.len() < 12 {
        bad.push(format!("only {} guards: {names:?}", names.len()));
    }
    bad
}

/// Kernel parameters that stand only in the code or only in the table.
pub(crate) fn parameters(tree: &Tree) -> Vec<String> {
    let known: Vec<&str> = netflash_pxe::PARAMETERS.iter().map(|p| p.name).collect();
    differences(&known, tree.text("docs/OPERATING.md"))
}

fn differences(known: &[&str], table: &str) -> Vec<String> {
    let mut bad = Vec::new();
    let rows: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `netflash."))
        .filter_map(|rest| rest.split(['`', '=']).next())
        .collect();
    for name in known {
        let short = name.strip_prefix("netflash.").unwrap_or(name);
        if !rows.contains(&short) {
            bad.push(format!(
                "netflash.{short} is not in the table of docs/OPERATING.md"
            ));
        }
    }
    for row in rows {
        if !known
            .iter()
            .any(|name| name.strip_prefix("netflash.").unwrap_or(name) == row)
        {
            bad.push(format!(
                "netflash.{row} is in the table but not in the code"
            ));
        }
    }
    bad
}

/// Widest line of help allowed, in columns.
const COLUMNS_MAX: usize = 80;

/// Options without help or without a word in the manual, and help that is too wide.
pub(crate) fn command_line(tree: &Tree) -> Vec<String> {
    let manual = tree.text("docs/OPERATING.md");
    let mut bad = Vec::new();
    examine(netflash_fleet::command(), "netflash", manual, &mut bad);
    bad
}

fn examine(mut command: clap::Command, path: &str, manual: &str, bad: &mut Vec<String>) {
    command = command.term_width(COLUMNS_MAX);
    let help = command.render_long_help().to_string();
    for line in help
        .lines()
        .filter(|line| line.chars().count() > COLUMNS_MAX)
    {
        bad.push(format!("{path} --help is wider than {COLUMNS_MAX}: {line}"));
    }
    let has_children = command.has_subcommands();
    if !has_children && !help.contains("xample") {
        bad.push(format!("{path} --help has no example"));
    }
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else {
            continue;
        };
        if matches!(long, "help" | "version") {
            continue;
        }
        if argument.get_help().is_none() && argument.get_long_help().is_none() {
            bad.push(format!("{path} --{long} has no help"));
        }
        if !manual.contains(&format!("--{long}")) {
            bad.push(format!("{path} --{long} is not in docs/OPERATING.md"));
        }
    }
    for child in command.get_subcommands() {
        if child.get_name() != "help" {
            examine(
                child.clone(),
                &format!("{path} {}", child.get_name()),
                manual,
                bad,
            );
        }
    }
}

#[test]
fn a_guard_without_a_case_is_found() {
    let tree = Tree::of(&[
        (
            "multicast/src/a.rs",
            "if !guard!(\"crc\", ok) {\n// guard!(\"no\", x)\nguard!(\"age\", y)",
        ),
        ("tests/sabotage.rs", "case(\"crc\")"),
    ]);
    let bad = guards(&tree);
    assert_eq!(bad.len(), 2, "{bad:?}");
    assert!(bad[0].contains("age"));
}

#[test]
fn a_difference_between_code_and_table_is_found() {
    let bad = differences(
        &["disk", "netflash.new"],
        "| `netflash.disk=` | x |\n| `netflash.old` |",
    );
    assert_eq!(bad.len(), 2, "{bad:?}");
}

#[test]
fn a_bad_command_line_is_found() {
    let wide = "x".repeat(90);
    let command = clap::Command::new("x")
        .arg(clap::Arg::new("loud").long("loud"))
        .about(wide);
    let mut bad = Vec::new();
    examine(command, "x", "", &mut bad);
    assert_eq!(bad.len(), 4, "{bad:?}");
}
