//! The files by which the agent finds its way among the modules: `modules.dep`, `.alias`, `.softdep` and `.builtin`.
//!
//! They have the form `depmod` gives them, restricted to what is carried. One thing is better than there: soft
//! dependencies name modules, never algorithms, because the choice was made already.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::modules::{Module, Selection};

/// Path below `/lib/modules/VERSION` and content of each index file.
pub(crate) fn render(selection: &Selection, builtin_list: &str) -> [(&'static str, String); 4] {
    let modules = &selection.modules;
    let (mut dependencies, mut aliases, mut soft) = (String::new(), String::new(), String::new());
    for (name, module) in modules {
        let mut order = Vec::new();
        needed_first(modules, name, &mut BTreeSet::new(), &mut order);
        // The module itself comes last and is not its own dependency; loaders go through the line from its end.
        order.pop();
        let paths: String = order
            .iter()
            .rev()
            .map(|needed| format!(" {}", needed.path))
            .collect();
        line(&mut dependencies, format_args!("{}:{paths}", module.path));
        for alias in &module.info.aliases {
            line(&mut aliases, format_args!("alias {alias} {name}"));
        }
        let (before, after) = (&module.info.soft_before, &module.info.soft_after);
        if !before.is_empty() || !after.is_empty() {
            let before: String = before.iter().map(|name| format!(" {name}")).collect();
            let after: String = after.iter().map(|name| format!(" {name}")).collect();
            line(
                &mut soft,
                format_args!("softdep {name} pre:{before} post:{after}"),
            );
        }
    }
    [
        ("modules.dep", dependencies),
        ("modules.alias", aliases),
        ("modules.softdep", soft),
        ("modules.builtin", builtin_list.to_owned()),
    ]
}

/// Appends `name` after everything it depends on, each module once.
fn needed_first<'a>(
    modules: &'a BTreeMap<String, Module>,
    name: &'a str,
    visited: &mut BTreeSet<&'a str>,
    order: &mut Vec<&'a Module>,
) {
    // A circle, which only a made-up module can have, ends here.
    if !visited.insert(name) {
        return;
    }
    let Some(module) = modules.get(name) else {
        return;
    };
    for needed in &module.info.depends {
        needed_first(modules, needed, visited, order);
    }
    order.push(module);
}

fn line(text: &mut String, content: std::fmt::Arguments) {
    writeln!(text, "{content}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::ModuleTree;
    use crate::modules::tests::made_up_tree;

    fn index_of(wanted: &[&str]) -> BTreeMap<&'static str, String> {
        let root = tempfile::tempdir().unwrap();
        made_up_tree(root.path());
        let selection = ModuleTree::open(root.path())
            .unwrap()
            .select(wanted.iter().copied())
            .unwrap();
        render(&selection, "kernel/drivers/scsi_mod.ko\n")
            .into_iter()
            .collect()
    }

    #[test]
    fn a_line_lists_all_that_is_needed_and_the_last_is_loaded_first() {
        let index = index_of(&["sd_mod"]);
        let sd = index["modules.dep"]
            .lines()
            .find(|line| line.contains("sd_mod.ko:"))
            .unwrap();
        assert_eq!(
            sd,
            "kernel/drivers/scsi/sd_mod.ko: kernel/lib/t10-pi.ko kernel/lib/crc-t10dif.ko"
        );
    }

    #[test]
    fn soft_dependencies_name_modules() {
        let index = index_of(&["sd_mod"]);
        assert_eq!(
            index["modules.softdep"],
            "softdep crc_t10dif pre: crct10dif_fast crct10dif_generic post:\n"
        );
    }

    #[test]
    fn aliases_lead_to_modules_and_only_carried_ones_appear() {
        let index = index_of(&["e1000_x"]);
        assert_eq!(
            index["modules.alias"],
            "alias pci:v00008086d0000100Esv* e1000_x\n"
        );
        assert_eq!(index["modules.dep"].lines().count(), 2);
        assert_eq!(index["modules.builtin"], "kernel/drivers/scsi_mod.ko\n");
    }

    #[test]
    fn a_circle_ends() {
        let index = index_of(&["circle_a"]);
        assert_eq!(
            index["modules.dep"],
            "kernel/crypto/circle_a.ko: kernel/crypto/circle_b.ko\nkernel/crypto/circle_b.ko: kernel/crypto/circle_a.ko\n"
        );
    }
}
