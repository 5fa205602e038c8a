//! The session in `docs/operating.md` is what the example prints.

#[path = "../examples/a_change_with_trouble.rs"]
mod a_change_with_trouble;

const GUIDE: &str = include_str!("../docs/operating.md");

#[test]
fn the_session_is_what_the_example_prints() {
    let session = a_change_with_trouble::session().expect("it ends");
    let (_, after) = GUIDE.split_once("```text\n").expect("a session");
    let (quoted, _) = after.split_once("```").expect("its end");
    assert!(quoted == session, "the guide should have:\n{session}");
}
