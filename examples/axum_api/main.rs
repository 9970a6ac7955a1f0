//! A JSON API for whoever is logged in on the Django site beside it: `make example NAME=axum_api`.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use django_sessions::backends::StoreError;
use django_sessions::contrib::auth::{User, Users};
use django_sessions::settings::Settings;
use django_sessions::web::tower::{CsrfLayer, SessionLayer};
use django_sessions::web::{Auth, Csrf, Refusal, RequireUser, Session};
use serde::Deserialize;
use serde_json::{Value, json};

/// Who is logged in, and the cart that Django and this service share.
async fn me(user: Option<User>, session: Session) -> Result<Json<Value>, StoreError> {
    let cart: Vec<String> = session.get("cart").await?.unwrap_or_default();
    Ok(Json(json!({"username": user.map(|user| user.username), "cart": cart})))
}

/// What a script puts into the header `X-CSRFToken`; the cookie comes along.
async fn csrf_token(csrf: Csrf) -> Result<Json<Value>, StoreError> {
    Ok(Json(json!({"token": csrf.token()?})))
}

#[derive(Deserialize)]
struct Item {
    name: String,
}

/// For users only, 401 otherwise; and 403 without a CSRF token, which the layer sees to.
async fn cart_add(
    RequireUser(_): RequireUser,
    session: Session,
    Json(item): Json<Item>,
) -> Result<Json<Vec<String>>, StoreError> {
    let mut session = session.lock().await?;
    let mut cart: Vec<String> = session.get("cart")?.unwrap_or_default();
    cart.push(item.name);
    session.insert("cart", &cart)?;
    Ok(Json(cart))
}

/// For whom an administrator gave the permission, in Django.
async fn find_user(
    auth: Auth,
    axum::extract::Path(username): axum::extract::Path<String>,
    State(users): State<Users>,
) -> Result<Json<Value>, Refusal> {
    auth.require_perm("auth.view_user").await?;
    let user = users.by_username(&username).await?;
    Ok(Json(json!(user.map(|user| json!({"id": user.id.to_string(), "email": user.email})))))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_ansi(false).init();

    // `manage.py export_session_settings` wrote it.
    let settings = Arc::new(Settings::from_file(std::env::var("EXAMPLE_SETTINGS")?)?);
    let users = settings.connect_users().await?;
    let sessions = SessionLayer::new(settings.connect().await?, settings.clone()).with_users(users.clone());

    let app = Router::new()
        .route("/api/me", get(me))
        .route("/api/csrf-token", get(csrf_token))
        .route("/api/cart", post(cart_add))
        .route("/api/users/{username}", get(find_user))
        .layer(CsrfLayer::new(settings))
        .layer(sessions)
        .with_state(users);

    let port = std::env::var("PORT")?.parse()?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
