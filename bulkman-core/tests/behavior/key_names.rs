//! The names of keys in snapshots.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bulkman::Bulkhead;
use bulkman::bulkhead::Fairness;

use crate::harness::Harness;
use crate::keys::{Panics, config, run};

on_every_runtime![
    snapshot_shows_the_names_of_keys,
    calls_without_a_key_have_no_name,
    key_named_again_has_its_newest_name,
    clones_share_the_names_of_keys,
    oldest_of_1025_names_is_dropped,
    name_given_again_is_the_newest,
    panic_while_a_key_is_named_locks_nothing,
    hash_and_conversion_of_a_name_may_use_the_bulkhead,
    names_appear_once_fairness_is_set,
];

/// Returns the name of a key that has running calls.
#[track_caller]
fn name_of(bulkhead: &Bulkhead, key: &(impl Hash + ?Sized)) -> Option<String> {
    let (key, keys) = (Some(bulkhead.call_key(key)), bulkhead.snapshot().keys);
    let shown = keys.into_iter().find(|it| it.key == key).unwrap();
    shown.name.as_deref().map(str::to_owned)
}

async fn snapshot_shows_the_names_of_keys(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new()));
    let key = bulkhead.name_key("a", "Acme Inc.");
    assert_eq!(key, bulkhead.call_key("a"));
    let _running = (
        bulkhead.call().with_key(key).try_acquire().unwrap(),
        run(&bulkhead, "b"),
    );
    assert_eq!(name_of(&bulkhead, "a").as_deref(), Some("Acme Inc."));
    assert_eq!(name_of(&bulkhead, "b"), None);
    bulkhead.name_key("b", String::new());
    assert_eq!(name_of(&bulkhead, "b").as_deref(), Some(""));
    let debug = format!("{:?}", bulkhead.snapshot());
    assert!(debug.contains("Acme Inc."), "{debug}");
}

async fn calls_without_a_key_have_no_name(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new()));
    for tenant in 0..100 {
        bulkhead.name_key(&tenant, "named");
    }
    let _running = bulkhead.try_acquire().unwrap();
    let [shared] = &bulkhead.snapshot().keys[..] else {
        panic!("one key has a call")
    };
    assert_eq!((shared.key, &shared.name, shared.held), (None, &None, 1));
}

async fn key_named_again_has_its_newest_name(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new()));
    let _running = (run(&bulkhead, "a"), run(&bulkhead, "b"));
    for name in ["first", "second", "third"] {
        bulkhead.name_key("a", name);
        assert_eq!(name_of(&bulkhead, "a").as_deref(), Some(name));
    }
    assert_eq!(name_of(&bulkhead, "b"), None);
}

async fn clones_share_the_names_of_keys(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new()));
    let (clone, other) = (bulkhead.clone(), t.bulkhead(config(4, Fairness::new())));
    let _running = (run(&bulkhead, "a"), run(&other, "a"));
    clone.name_key("a", "by the clone");
    drop(clone);
    assert_eq!(name_of(&bulkhead, "a").as_deref(), Some("by the clone"));
    assert_eq!(name_of(&other, "a"), None);
}

async fn oldest_of_1025_names_is_dropped(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new()));
    let _running = [0, 1, 1024].map(|key: u32| bulkhead.call().key(&key).try_acquire().unwrap());
    let shown = || [0, 1, 1024].map(|key: u32| name_of(&bulkhead, &key).is_some());
    let name = |key: u32| {
        let name: Arc<str> = key.to_string().into();
        bulkhead.name_key(&key, Arc::clone(&name));
        Arc::downgrade(&name)
    };
    let mut names: Vec<_> = (0..1024).map(name).collect();
    assert_eq!(shown(), [true, true, false]);
    names.push(name(1024));
    assert_eq!(shown(), [false, true, true]);
    names.extend((1025..3000).map(name));
    let kept: Vec<_> = names.iter().filter_map(std::sync::Weak::upgrade).collect();
    let last: Vec<Arc<str>> = (3000 - 1024..3000)
        .map(|key| key.to_string().into())
        .collect();
    assert_eq!(kept, last);
}

async fn name_given_again_is_the_newest(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new()));
    let _running = [0, 1].map(|key: u32| bulkhead.call().key(&key).try_acquire().unwrap());
    for key in 0..1024_u32 {
        bulkhead.name_key(&key, "name");
    }
    // Takes no room, as the key has a name.
    bulkhead.name_key(&0_u32, "name");
    assert!(name_of(&bulkhead, &1_u32).is_some());
    bulkhead.name_key(&1024_u32, "name");
    assert!(name_of(&bulkhead, &0_u32).is_some());
    assert_eq!(name_of(&bulkhead, &1_u32), None);
}

struct PanicsAsName;

impl From<PanicsAsName> for Arc<str> {
    fn from(_: PanicsAsName) -> Self {
        panic!("no name");
    }
}

/// Hazard K13.
async fn panic_while_a_key_is_named_locks_nothing(t: Harness) {
    let bulkhead = t.bulkhead(config(2, Fairness::new()));
    let _running = run(&bulkhead, "a");
    bulkhead.name_key("a", "before");
    for name_key in [
        (|it: &Bulkhead| it.name_key(&Panics, "panics")) as fn(&Bulkhead) -> _,
        |it| it.name_key("a", PanicsAsName),
    ] {
        let named = std::panic::AssertUnwindSafe(|| name_key(&bulkhead));
        assert!(std::panic::catch_unwind(named).is_err());
        assert_eq!(name_of(&bulkhead, "a").as_deref(), Some("before"));
    }
    bulkhead.name_key("a", "after");
    assert_eq!(name_of(&bulkhead, "a").as_deref(), Some("after"));
}

struct UsesBulkhead(Bulkhead);

impl Hash for UsesBulkhead {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name_key("a", "from the hash");
        self.0.snapshot().keys.len().hash(state);
    }
}

impl From<UsesBulkhead> for Arc<str> {
    fn from(it: UsesBulkhead) -> Self {
        let name = name_of(&it.0, "a").unwrap();
        it.0.name_key("a", "from the conversion");
        name.into()
    }
}

async fn hash_and_conversion_of_a_name_may_use_the_bulkhead(t: Harness) {
    let bulkhead = t.bulkhead(config(2, Fairness::new()));
    let _running = (run(&bulkhead, "a"), run(&bulkhead, "b"));
    bulkhead.name_key(&UsesBulkhead(bulkhead.clone()), "name");
    bulkhead.name_key("b", UsesBulkhead(bulkhead.clone()));
    assert_eq!(name_of(&bulkhead, "b").as_deref(), Some("from the hash"));
    assert_eq!(
        name_of(&bulkhead, "a").as_deref(),
        Some("from the conversion")
    );
}

async fn names_appear_once_fairness_is_set(t: Harness) {
    let fair = config(2, Fairness::new());
    let bulkhead = t.bulkhead(fair.clone().fairness(None));
    bulkhead.name_key("a", "named early");
    let running = run(&bulkhead, "a");
    assert_eq!(bulkhead.snapshot().keys, []);
    running.succeed();
    bulkhead.reconfigure(fair).unwrap();
    let _running = run(&bulkhead, "a");
    assert_eq!(name_of(&bulkhead, "a").as_deref(), Some("named early"));
}
