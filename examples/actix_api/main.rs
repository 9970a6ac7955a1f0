//! A JSON API for whoever is logged in on the Django site beside it: `make example NAME=actix_api`.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

use actix_web::web::{self, Data, Json, Path};
use actix_web::{App, HttpServer};
use django_sessions::backends::StoreError;
use django_sessions::contrib::auth::{User, Users};
use django_sessions::settings::Settings;
use django_sessions::web::actix::{CsrfMiddleware, SessionMiddleware};
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

/// For users only, 401 otherwise; and 403 without a CSRF token, which the middleware sees to.
async fn cart_add(
    _user: RequireUser,
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
async fn find_user(auth: Auth, username: Path<String>, users: Data<Users>) -> Result<Json<Value>, Refusal> {
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
    let sessions =
        SessionMiddleware::new(settings.connect().await?, settings.clone()).with_users(users.clone());
    let csrf = CsrfMiddleware::new(settings);

    let app = move || {
        App::new()
            .app_data(Data::new(users.clone()))
            .route("/api/me", web::get().to(me))
            .route("/api/csrf-token", web::get().to(csrf_token))
            .route("/api/cart", web::post().to(cart_add))
            .route("/api/users/{username}", web::get().to(find_user))
            .wrap(csrf.clone())
            .wrap(sessions.clone())
    };
    let port: u16 = std::env::var("PORT")?.parse()?;
    tracing::info!("listening on http://127.0.0.1:{port}");
    HttpServer::new(app).bind((Ipv4Addr::LOCALHOST, port))?.run().await?;
    Ok(())
}
