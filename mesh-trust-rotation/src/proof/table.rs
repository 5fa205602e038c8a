//! The table of hazards in `docs/why-it-is-safe.md` is true: every mutant is in it, and every test it names exists.

use super::mutants;

const PAGE: &str = include_str!("../../docs/why-it-is-safe.md");
const TESTS: &[&str] = &[
    include_str!("plain.rs"),
    include_str!("configured.rs"),
    include_str!("../document.rs"),
    include_str!("../x509.rs"),
    include_str!("../../tests/what_is_asked_for.rs"),
];

/// The section with the table, on one line.
fn hazards() -> String {
    let (_, after) = PAGE.split_once("## The hazards").unwrap();
    let (section, _) = after.split_once("## How far").unwrap();
    section.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_mutant_is_in_the_table_with_the_invariants_it_falls_by() {
    let hazards = hazards();
    for (name, by) in mutants::all() {
        let (_, after) = hazards.split_once(&format!("{name} ")).unwrap_or_default();
        let number = |word: &&str| {
            let (letter, digits) = word.split_at(1);
            letter.bytes().all(|b| b.is_ascii_uppercase())
                && digits.bytes().all(|b| b.is_ascii_digit())
        };
        let mut says = Vec::new();
        for word in after.split(' ') {
            let bare = word.trim_end_matches([',', ';', '.']);
            if !number(&bare) {
                break;
            }
            says.push(bare);
            if bare != word {
                break;
            }
        }
        assert_eq!(says.join(" "), by, "{name}");
    }
}

#[test]
fn every_test_that_the_table_names_exists() {
    let hazards = hazards();
    let quoted = hazards.split('`').skip(1).step_by(2);
    let plain = |name: &&str| name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase());
    let mut count = 0;
    for name in quoted
        .filter(plain)
        .filter(|name| name.matches('_').count() > 1)
    {
        let begins = format!("fn {name}()");
        assert!(TESTS.iter().any(|file| file.contains(&begins)), "{name}");
        count += 1;
    }
    assert!(count > 8, "{count}");
}
