//! Pages beside those of a Django site: a login, notices and a form that posts to Django.
//! `make example NAME=axum_templates`.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, State};
use axum::response::Redirect;
use axum::routing::{get, post};
use django_sessions::contrib::auth::User;
use django_sessions::settings::Settings;
use django_sessions::web::tower::{CsrfLayer, MessagesLayer, SessionLayer};
use django_sessions::web::{Auth, Csrf, LoginRequired, Messages, Refusal, Session};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;

/// The address of the Django site.
#[derive(Clone)]
struct Django(Arc<str>);

const STYLE: &str = "
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
.notice { padding: .5rem 1rem; background: #e7f3ea; color: #14361e; border-radius: .4rem }
.error { background: #fbe9e7; color: #5f1411 }";

/// A page with the notices that Django or this service left.
async fn page(messages: &Messages, content: Markup) -> Result<Markup, Refusal> {
    let notices = messages.take().await?;
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta name="viewport" content="width=device-width";
                title { "Rust" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                @for notice in &notices { p class={ "notice " (notice.tags()) } { (notice.text) } }
                (content)
            }
        }
    })
}

/// The field that `{% csrf_token %}` writes in a template of Django.
fn csrf_field(csrf: &Csrf) -> Result<Markup, Refusal> {
    let token = csrf.token().map_err(django_sessions::backends::StoreError::from)?;
    Ok(html! { input type="hidden" name="csrfmiddlewaretoken" value=(token); })
}

async fn home(
    State(django): State<Django>,
    user: Option<User>,
    session: Session,
    csrf: Csrf,
    messages: Messages,
) -> Result<Markup, Refusal> {
    let Some(user) = user else {
        return page(&messages, html! { h1 { "Hello, stranger" } p { a href="/login/" { "Log in" } } }).await;
    };
    let cart: Vec<String> = session.get("cart").await?.unwrap_or_default();
    let content = html! {
        h1 { "Hello, " (user.username) }
        ul { @for item in &cart { li { (item) } } }
        // Django takes it, and leaves a notice for the next page that shows some.
        form method="post" action={ (django.0) "/cart/add/" } {
            (csrf_field(&csrf)?)
            input type="hidden" name="back" value="rust";
            label { "Item " input name="name" required; } " "
            button { "Add in Django" }
        }
        form method="post" action="/logout/" { (csrf_field(&csrf)?) button { "Log out" } }
        p { a href=(django.0) { "The same in Django" } }
    };
    page(&messages, content).await
}

async fn account(LoginRequired(user): LoginRequired, messages: Messages) -> Result<Markup, Refusal> {
    page(&messages, html! { h1 { (user.username) } p { "Your number is " (user.id) "." } }).await
}

async fn login_form(csrf: Csrf, messages: Messages) -> Result<Markup, Refusal> {
    let form = html! {
        h1 { "Log in" }
        form method="post" {
            (csrf_field(&csrf)?)
            p { label { "Username " input name="username" required; } }
            p { label { "Password " input type="password" name="password" required; } }
            button { "Log in" }
        }
    };
    page(&messages, form).await
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

async fn login(auth: Auth, messages: Messages, Form(form): Form<Login>) -> Result<Redirect, Refusal> {
    let Some(user) = auth.users().authenticate(&form.username, &form.password).await? else {
        messages.error("Username and password do not match.").await;
        return Ok(Redirect::to("/login/"));
    };
    auth.login(user).await?;
    messages.success(format!("Welcome, {}.", form.username)).await;
    Ok(Redirect::to("/"))
}

async fn logout(auth: Auth) -> Result<Redirect, Refusal> {
    auth.logout().await?;
    Ok(Redirect::to("/"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_ansi(false).init();

    // `manage.py export_session_settings` wrote it.
    let settings = Arc::new(Settings::from_file(std::env::var("EXAMPLE_SETTINGS")?)?);
    let users = settings.connect_users().await?;
    let sessions = SessionLayer::new(settings.connect().await?, settings.clone()).with_users(users);

    let app = Router::new()
        .route("/", get(home))
        .route("/account/", get(account))
        .route("/login/", get(login_form).post(login))
        .route("/logout/", post(logout))
        // In the order of Django's MIDDLEWARE, from below: each layer stands around those above it.
        .layer(MessagesLayer::new(settings.clone())?)
        .layer(CsrfLayer::new(settings))
        .layer(sessions)
        .with_state(Django(std::env::var("EXAMPLE_DJANGO")?.into()));

    let port = std::env::var("PORT")?.parse()?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
