//! The Rust service of `make bench-web`: the endpoint that `site/` has in Django, and what it is compared with.
//!
//! `/me` answers who is logged in and what is in the cart, `/session` reads one value through the layer, and `/bare` has
//! no layer: it fetches the bytes of that session itself.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use django_sessions::backends::StoreError;
use django_sessions::contrib::auth::Users;
use django_sessions::settings::{Engine, Settings};
use django_sessions::web::Session;
use django_sessions::web::tower::SessionLayer;
use redis::AsyncCommands as _;
use serde_json::{Value, json};

/// The driver's own connection.
#[derive(Clone)]
enum Driver {
    Redis(redis::aio::ConnectionManager),
    Postgres(sqlx::PgPool),
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let settings = Arc::new(Settings::from_file(variable("BENCH_SETTINGS")?)?);
    let pool = settings.pool(&settings.auth.database).await?;
    let driver = match settings.session_engine {
        Engine::Cache => {
            let client = redis::Client::open(variable("BENCH_REDIS")?)?;
            Driver::Redis(client.get_connection_manager().await?)
        }
        _ => Driver::Postgres(pool.postgres().ok_or("the bench is made for PostgreSQL")?.clone()),
    };
    let users = Users::new(pool, settings.clone());
    let layer = SessionLayer::new(settings.connect().await?, settings);
    let app = Router::new()
        .route("/me", get(me).with_state(users))
        .route("/session", get(session))
        .layer(layer)
        .route("/bare", get(bare).with_state(driver));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, variable("PORT")?.parse()?)).await?;
    axum::serve(listener, app).await?;
    Ok(())
}

async fn me(State(users): State<Users>, session: Session) -> Result<axum::body::Body, StoreError> {
    let store = session.store().clone();
    let mut session = session.lock().await?;
    let user = users.get_user(&*store, &mut session).await?;
    let cart: Value = session.get("cart")?.unwrap_or_else(|| json!([]));
    Ok(json!({"username": user.map(|user| user.username), "cart": cart}).to_string().into())
}

async fn session(session: Session) -> Result<String, StoreError> {
    Ok(session.get("greeting").await?.unwrap_or_default())
}

async fn bare(State(driver): State<Driver>, headers: HeaderMap) -> Result<String, StatusCode> {
    let cookie = headers.get(header::COOKIE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = cookie.strip_prefix("sessionid=").ok_or(StatusCode::FORBIDDEN)?;
    let failed = StatusCode::INTERNAL_SERVER_ERROR;
    let bytes = match driver {
        Driver::Redis(mut redis) => {
            let name = format!(":1:django.contrib.sessions.cache{key}");
            redis.get::<_, Option<Vec<u8>>>(name).await.map_err(|_| failed)?.unwrap_or_default()
        }
        Driver::Postgres(pool) => {
            // Nobody's own handler would take a session that is over.
            let statement =
                "SELECT session_data FROM django_session WHERE session_key = $1 AND expire_date > now()";
            let row: Option<(String,)> =
                sqlx::query_as(statement).bind(key).fetch_optional(&pool).await.map_err(|_| failed)?;
            row.map(|(text,)| text.into_bytes()).unwrap_or_default()
        }
    };
    // As long as the answer of `/session`.
    if bytes.is_empty() { Err(StatusCode::NOT_FOUND) } else { Ok("hello".to_owned()) }
}
