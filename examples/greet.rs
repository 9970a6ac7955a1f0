//! Greets whom Django logged in, and counts how often, in the session that both share.

use django_sessions::{session::SessionKey, settings::Settings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::from_file("sessions.toml")?;
    let store = settings.connect().await?;
    let users = settings.connect_users().await?;

    let cookie = std::env::args().nth(1).ok_or("usage: greet SESSION_COOKIE")?;
    let mut session = store.load_or_empty(&SessionKey::new(cookie).ok_or("that is no session key")?).await?;
    match users.get_user(&*store, &mut session).await? {
        Some(user) => {
            let greetings = session.get::<u32>("greetings")?.unwrap_or(0) + 1;
            session.insert("greetings", &greetings)?;
            store.save(&mut session).await?;
            println!("Hello, {}! ({greetings})", user.username);
        }
        None => println!("Hello, stranger!"),
    }
    Ok(())
}
