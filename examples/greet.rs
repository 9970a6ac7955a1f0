//! Greets whom Django logged in.

use django_sessions::backends::{SessionStore, db::DbStore};
use django_sessions::{contrib::auth::Users, crypto::SecretKeys};
use django_sessions::{session::SessionKey, settings::SessionSettings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = SessionSettings::new(SecretKeys::new(std::env::var("DJANGO_SECRET_KEY")?));
    let store = DbStore::connect("sqlite:db.sqlite3", settings).await?;
    let users = Users::beside(&store);

    let cookie = std::env::args().nth(1).ok_or("usage: greet SESSION_COOKIE")?;
    let mut session = store.load_or_empty(&SessionKey::new(cookie).ok_or("that is no session key")?).await?;
    match users.get_user(&store, &mut session).await? {
        Some(user) => println!("Hello, {}!", user.username),
        None => println!("Hello, stranger!"),
    }
    Ok(())
}
