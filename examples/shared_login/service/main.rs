//! The Rust half of the demo: a small shop that knows whoever is logged in on the Django site beside it.
//!
//! `visitor.rs` is what an application does with the crate today; `pages.rs` is HTML.

mod pages;
mod visitor;

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use django_sessions::crypto::{RANDOM_STRING_CHARS, get_random_string};
use django_sessions::serializers::json::RawValue;
use django_sessions::session::SessionError;
use django_sessions::settings::Settings;
use django_sessions::web::Auth;
use django_sessions::web::tower::SessionLayer;
use maud::Markup;
use serde::{Deserialize, Serialize};

use crate::visitor::{Problem, Visitor, text};

const MAX_NAME_LENGTH: usize = 80;

/// What this service knows of an item of the cart. Django may keep more in one: items that stay are passed on as the
/// text that they are.
#[derive(Serialize, Deserialize)]
struct Item {
    id: String,
    name: String,
    added_by: String,
}

/// What all requests share.
#[derive(Clone)]
struct Shop {
    settings: Arc<Settings>,
    /// Where sessions are, in words.
    kept: Arc<str>,
    port: u16,
    django_port: u16,
}

type Handled = Result<Response, Problem>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_ansi(false).init();

    // Django wrote it: `manage.py export_session_settings`. Whatever store it names is opened.
    let settings = Arc::new(Settings::from_file(variable("DEMO_SETTINGS")?)?);
    let port = variable("DEMO_RUST_PORT")?.parse()?;
    let shop = Shop {
        settings: settings.clone(),
        kept: variable("DEMO_KEPT")?.into(),
        port,
        django_port: variable("DEMO_DJANGO_PORT")?.parse()?,
    };

    let users = settings.connect_users().await?;
    let sessions = SessionLayer::new(settings.connect().await?, settings).with_users(users);

    let app = Router::new()
        .route("/", get(home))
        .route("/cart/", get(cart))
        .route("/cart/add/", post(cart_add))
        .route("/cart/remove/", post(cart_remove))
        .route("/logout/", post(logout))
        .route("/static/shop/shop.css", get(stylesheet))
        .route("/static/shop/icon.svg", get(icon))
        .fallback(not_found)
        .layer(sessions)
        .layer(middleware::from_fn_with_state(shop.clone(), guard))
        .with_state(shop);

    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("{name} is not set; `make demo` sets it"))
}

async fn home(State(shop): State<Shop>, visitor: Visitor) -> Handled {
    let page = match &visitor.user {
        Some(user) => pages::home(&visitor, user, &shop.settings.session_cookie_name, &shop.kept),
        None => pages::nobody(&visitor),
    };
    Ok(visitor.respond(page))
}

async fn cart(visitor: Visitor) -> Handled {
    let page = match &visitor.user {
        Some(user) => {
            let items: Vec<Item> = visitor.session.get("cart")?.unwrap_or_default();
            pages::cart(&visitor, user, &items)
        }
        None => pages::nobody(&visitor),
    };
    Ok(visitor.respond(page))
}

#[derive(Deserialize)]
struct AddItem {
    name: String,
}

async fn cart_add(mut visitor: Visitor, Form(form): Form<AddItem>) -> Handled {
    visitor.must_be_logged_in()?;
    let name: String = form.name.trim().chars().take(MAX_NAME_LENGTH).collect();
    if !name.is_empty() {
        let mut cart = read_cart(&visitor)?;
        let id = get_random_string(8, RANDOM_STRING_CHARS)?;
        let item = Item { id, name, added_by: "Rust".to_owned() };
        cart.push(RawValue::new(&item).expect("three texts have a JSON form"));
        visitor.session.insert("cart", &cart)?;
    }
    Ok(visitor.respond(Redirect::to("/cart/")))
}

#[derive(Deserialize)]
struct RemoveItem {
    id: String,
}

async fn cart_remove(mut visitor: Visitor, Form(form): Form<RemoveItem>) -> Handled {
    visitor.must_be_logged_in()?;
    let mut cart = read_cart(&visitor)?;
    cart.retain(|item| !item.to::<Item>().is_ok_and(|item| item.id == form.id));
    visitor.session.insert("cart", &cart)?;
    Ok(visitor.respond(Redirect::to("/cart/")))
}

async fn logout(auth: Auth) -> Handled {
    auth.logout().await?;
    Ok(Redirect::to("/").into_response())
}

fn read_cart(visitor: &Visitor) -> Result<Vec<RawValue>, SessionError> {
    Ok(visitor.session.get("cart")?.unwrap_or_default())
}

async fn stylesheet() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css")], include_str!("../site/shop/static/shop/shop.css"))
}

async fn icon() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "image/svg+xml")], include_str!("../site/shop/static/shop/icon.svg"))
}

async fn not_found() -> (StatusCode, Markup) {
    (StatusCode::NOT_FOUND, pages::problem("There is no such page.", "Go on from the shop's home page."))
}

/// What Django's ALLOWED_HOSTS and CSRF checks do before a view is called, then a few headers as Django sends them.
///
/// A POST has to carry the Origin of this very service: every browser sends it, and a page of another site (or of another
/// port) cannot forge it. Django's CSRF tokens, which older clients need too, are in `examples/axum_templates`.
async fn guard(State(shop): State<Shop>, request: Request, next: Next) -> Response {
    let (host, origin) = (text(request.headers(), header::HOST), text(request.headers(), header::ORIGIN));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let is_known = ["127.0.0.1", "localhost"].iter().any(|name| host == format!("{name}:{}", shop.port));
    let is_safe = matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
    let mut response = if !is_known {
        let page = pages::problem("This is not my name.", "Call the demo by the address that it printed.");
        (StatusCode::BAD_REQUEST, page).into_response()
    } else if !is_safe && origin.strip_prefix("http://") != Some(host) {
        let page = pages::problem(
            "That came from elsewhere.",
            "Forms of this shop are taken from its own pages only.",
        );
        (StatusCode::FORBIDDEN, page).into_response()
    } else {
        next.run(request).await
    };

    for (name, value) in [
        (
            "content-security-policy",
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'",
        ),
        ("referrer-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    tracing::info!("{method} {path} {}", response.status().as_u16());
    response
}
