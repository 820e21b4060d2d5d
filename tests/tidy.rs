//! Tidy: the habits of this house, as tests.
//!
//! Each rule is a pure function from the tree to the list of what breaks it,
//! and each has a planted fault beside it that it must find: a rule that
//! cannot fail is no rule.

#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/contract.rs"]
mod contract;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/tree.rs"]
mod tree;

use tree::Tree;

/// Fails with every breach, one a line.
fn holds(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

#[test]
fn the_rooms_import_only_whom_they_may() {
    holds("arrows between the rooms", arrows::breaches(&Tree::here()));
}

#[test]
fn the_agent_is_built_without_sabotage() {
    holds("sabotage in a program", arrows::sabotage(&Tree::here()));
}

#[test]
fn every_dependency_says_what_it_is_for() {
    holds("docs/dependencies.md", arrows::undocumented(&Tree::here()));
}

#[test]
fn no_leftovers() {
    holds("leftovers", source::leftovers(&Tree::here()));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    holds("files", source::shape(&Tree::here()));
}

#[test]
fn unsafe_code_stays_in_its_files_and_gives_its_reason() {
    holds("unsafe", source::unsafe_code(&Tree::here()));
}

#[test]
fn names_are_nouns_an_operator_would_say() {
    holds("names", source::names(&Tree::here()));
}

#[test]
fn imports_name_what_they_take() {
    holds("glob imports", source::globs(&Tree::here()));
}

#[test]
fn libraries_have_one_list_of_what_is_public() {
    holds("public modules", source::public_modules(&Tree::here()));
}

#[test]
fn the_repository_stands_alone() {
    holds("outside world", prose::outside(&Tree::here()));
}

#[test]
fn scripts_stop_at_the_first_error_and_explain_themselves() {
    holds("scripts", prose::scripts(&Tree::here()));
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    holds("links", prose::links(&Tree::here()));
}

#[test]
fn every_guard_has_its_sabotage_case() {
    holds("guards", contract::guards(&Tree::here()));
}

#[test]
fn every_kernel_parameter_is_documented() {
    holds("kernel parameters", contract::parameters(&Tree::here()));
}

#[test]
fn every_option_is_documented_and_help_fits_80_columns() {
    holds("command line", contract::command_line(&Tree::here()));
}
