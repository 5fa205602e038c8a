//! A controller that dies in the middle of a change.

use super::*;

#[tokio::test]
async fn killed_at_any_write_of_a_rotation_it_ends_in_the_same_place() {
    let mut world = quick(2).await;
    world.seconds(3).await;
    let before = world.store.writes();
    world.second(Some(ROTATE)).await;
    world.until_ended().await;
    let writes = world.store.writes() - before;
    assert!(writes > 10, "{writes}");
    let mut killed = 0;
    for at in 0..writes {
        for after in [false, true] {
            let mut world = quick(2).await;
            world.seconds(3).await;
            let old = world.anchor();
            world.store.dies_at(at, after);
            world.second(Some(ROTATE)).await;
            if world.rotation_ended() && world.anchor() == old {
                // It died before the operator's word was on record, and the operator was told so.
                world.second(Some(ROTATE)).await;
            }
            world.until_ended().await;
            world.seconds(20).await;
            killed += world.restarts;
            let record = world.trust.record();
            let outcome = record.rotation().last_outcome();
            assert_eq!(outcome, Some(Outcome::Completed), "write {at}, {after}");
            assert_ne!(world.anchor(), old);
            let keys = world.authorities().await;
            assert_eq!(keys.len(), 2, "write {at}, {after}: {keys:?}");
            assert_eq!(world.refusals, [""; 0], "write {at}, {after}");
        }
    }
    println!("killed before and after each of {writes} writes of a rotation: {killed} deaths");
    assert!(killed >= writes);
}
