//! What users may do, by themselves and by their groups.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::site::Site;

const NAMES: [&str; 8] = [
    "auth.add_group",
    "auth.change_group",
    "auth.delete_group",
    "auth.view_permission",
    "sessions.add_session",
    "sessions.view_session",
    "contenttypes.add_contenttype",
    "contenttypes.view_contenttype",
];

fn generated() -> impl Strategy<Value = Value> {
    let names = || subsequence(NAMES.to_vec(), 0..4);
    (prop::collection::vec(names(), 0..3), names(), select(vec![true, true, true, false]), select(vec![false, false, false, true]))
        .prop_map(|(groups, permissions, is_active, is_superuser)| {
            json!({"groups": groups, "permissions": permissions, "is_active": is_active, "is_superuser": is_superuser})
        })
}

pub(crate) async fn permissions_as_django(site: &Site) {
    let mut asked = NAMES.to_vec();
    asked.extend(["auth.fly", "auth", "", "add_group", "auth.add_group ", "AUTH.ADD_GROUP", "no_such.thing"]);
    let modules = ["auth", "sessions", "contenttypes", "shop", "", "aut"];
    let mut runner = TestRunner::deterministic();
    let (mut granted, mut refused) = (0, 0);
    for number in 0..25 {
        let user = generated().new_tree(&mut runner).unwrap().current();
        let pk = site.create(&format!("may{number}@shop.example"), Some("x"), user.clone());
        let expected = site.ask("perms", json!({"pk": pk, "names": asked, "modules": modules}));
        let user = site.user(&pk).await;
        let permissions = site.users.permissions(&user).await.unwrap();
        let (mut has, mut has_modules) = (Vec::new(), Vec::new());
        for name in &asked {
            has.push(site.users.has_perm(&user, name).await.unwrap());
            assert_eq!(permissions.has_perm(name), *has.last().unwrap(), "{name}");
        }
        for module in modules {
            has_modules.push(site.users.has_module_perms(&user, module).await.unwrap());
            assert_eq!(permissions.has_module_perms(module), *has_modules.last().unwrap(), "{module}");
        }
        let mut all: Vec<&str> = permissions.iter().collect();
        all.sort_unstable();
        let found = json!({"all": all, "has": has, "modules": has_modules});
        assert_eq!(found, expected, "{}: {user:?}", site.model);
        let every = site.users.has_perms(&user, asked[..2].iter().copied()).await.unwrap();
        assert_eq!(every, has[0] && has[1]);
        granted += has.iter().filter(|has| **has).count();
        refused += has.iter().filter(|has| !**has).count();
    }
    assert!(refused > 50 && (granted > 30 || site.model == "accounts.Member"), "{granted} {refused}");
}
