//! The same service on axum and on actix-web.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::settings::Settings;
use django_sessions::web::{Csrf, Messages, Session};

use crate::client::digest;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Axum,
    Actix,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Axum, Kind::Actix];

/// A server that is there until this is dropped.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    stop: Stop,
}

enum Stop {
    Axum(tokio::task::JoinHandle<()>),
    Actix(actix_web::dev::ServerHandle),
}

impl Drop for App {
    fn drop(&mut self) {
        match &self.stop {
            Stop::Axum(task) => task.abort(),
            Stop::Actix(handle) => drop(handle.stop(false)),
        }
    }
}

impl App {
    pub(crate) async fn start(kind: Kind, store: Arc<dyn SessionStore>, settings: Settings) -> Self {
        match kind {
            Kind::Axum => axum_app::start(store, settings).await,
            Kind::Actix => actix_app::start(store, settings).await,
        }
    }
}

/// Who is there, as the session says, and how often.
async fn visit(session: &Session) -> Result<String, StoreError> {
    let (owner, visits) = {
        let session = session.lock().await?;
        (session.get::<String>("owner")?, session.get::<u64>("visits")?.unwrap_or(0))
    };
    // Meanwhile, others are served.
    tokio::task::yield_now().await;
    session.insert("visits", &(visits + 1)).await?;
    Ok(format!("{} {}", owner.as_deref().unwrap_or("nobody"), visits + 1))
}

async fn log_in(session: &Session, csrf: &Csrf, name: &str) -> Result<(), StoreError> {
    session.flush().await?;
    session.insert("owner", name).await?;
    csrf.rotate()?;
    Ok(())
}

async fn slow(session: &Session) -> Result<&'static str, StoreError> {
    session.insert("a", &99).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok("slow")
}

async fn message(messages: &Messages) -> Result<String, StoreError> {
    let shown = messages.take().await?;
    messages.success("hush-in-a-message").await;
    Ok(shown.len().to_string())
}

async fn peek(session: &Session) -> Result<String, StoreError> {
    Ok(format!("{:?}", session.get::<i64>("a").await?))
}

mod axum_app {
    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::extract::{DefaultBodyLimit, Path, Request};
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use axum::routing::{any, get, post};
    use django_sessions::web::tower::{CsrfLayer, MessagesLayer, SessionLayer};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    pub(crate) async fn start(store: Arc<dyn SessionStore>, settings: Settings) -> App {
        let app = Router::new()
            .route("/peek", get(async |session: Session| super::peek(&session).await))
            .route("/visit", get(async |session: Session| super::visit(&session).await))
            .route("/slow", get(async |session: Session| super::slow(&session).await))
            .route("/message", get(async |messages: Messages| super::message(&messages).await))
            .route("/stream", get(stream))
            .route("/panic", get(panics))
            .route("/upgrade", get(upgrade))
            .route("/token", get(async |csrf: Csrf| csrf.token().unwrap()))
            .route("/form", post(async |body: Bytes| digest(&body)))
            .route(
                "/login/{name}",
                post(async |session: Session, csrf: Csrf, Path(name): Path<String>| {
                    log_in(&session, &csrf, &name).await
                }),
            )
            .layer(DefaultBodyLimit::max(100_000_000))
            .layer(MessagesLayer::new(settings.clone()).unwrap())
            .layer(CsrfLayer::new(settings.clone()))
            .layer(SessionLayer::new(store, settings))
            // A route outside of the layers answers without them.
            .route("/early", any(async || StatusCode::NO_CONTENT));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        App { address, stop: Stop::Axum(task) }
    }

    async fn stream(session: Session) -> Result<Body, StoreError> {
        session.insert("a", &2).await?;
        let later = async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let a = session.get::<i64>("a").await?.unwrap();
            session.insert("a", &100).await?;
            Ok::<_, StoreError>(a.to_string())
        };
        let first = futures_util::stream::iter([Ok("one ".to_owned()), Ok("two ".to_owned())]);
        let stream = futures_util::StreamExt::chain(first, futures_util::stream::once(later));
        Ok(Body::from_stream(stream))
    }

    async fn panics(session: Session) {
        session.insert("a", &98).await.unwrap();
        panic!("as handlers do");
    }

    async fn upgrade(session: Session, request: Request) -> Result<Response, StoreError> {
        session.insert("a", &3).await?;
        tokio::spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        });
        let headers = [("connection", "Upgrade"), ("upgrade", "websocket")];
        Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
    }
}

mod actix_app {
    use actix_web::web::{self, Bytes, Path, Payload};
    use actix_web::{App as ActixApp, HttpResponse, HttpServer};
    use django_sessions::web::actix::{CsrfMiddleware, MessagesMiddleware, SessionMiddleware};

    use super::*;

    pub(crate) async fn start(store: Arc<dyn SessionStore>, settings: Settings) -> App {
        let settings = Arc::new(settings);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let sessions = SessionMiddleware::new(store, settings.clone());
                let csrf = CsrfMiddleware::new(settings.clone());
                let messages = MessagesMiddleware::new(settings).unwrap();
                let server = HttpServer::new(move || {
                    let inside = web::scope("")
                        .wrap(messages.clone())
                        .wrap(csrf.clone())
                        .wrap(sessions.clone())
                        .configure(routes);
                    ActixApp::new()
                        .app_data(web::PayloadConfig::new(100_000_000))
                        .route("/early", web::to(async || HttpResponse::NoContent().finish()))
                        .service(inside)
                })
                .workers(2)
                // A browser that is gone needs no answer. By default actix-web takes its end for one of sending only.
                .h1_allow_half_closed(false)
                .disable_signals()
                .bind(("127.0.0.1", 0))
                .unwrap();
                let address = server.addrs()[0];
                let server = server.run();
                sender.send((address, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (address, handle) = receiver.await.unwrap();
        App { address, stop: Stop::Actix(handle) }
    }

    fn routes(config: &mut web::ServiceConfig) {
        let peek = web::get().to(async |session: Session| super::peek(&session).await);
        config
            .service(
                web::resource("/peek")
                    .route(peek)
                    .route(web::head().to(async |session: Session| super::peek(&session).await)),
            )
            .route("/visit", web::get().to(async |session: Session| super::visit(&session).await))
            .route("/slow", web::get().to(async |session: Session| super::slow(&session).await))
            .route("/message", web::get().to(async |messages: Messages| super::message(&messages).await))
            .route("/stream", web::get().to(stream))
            .route("/panic", web::get().to(panics))
            .route("/upgrade", web::get().to(upgrade))
            .route("/token", web::get().to(async |csrf: Csrf| csrf.token().unwrap()))
            .route("/form", web::post().to(async |body: Bytes| digest(&body)))
            .route(
                "/login/{name}",
                web::post().to(async |session: Session, csrf: Csrf, name: Path<String>| {
                    log_in(&session, &csrf, &name).await.map(|()| "")
                }),
            );
    }

    async fn stream(session: Session) -> Result<HttpResponse, StoreError> {
        session.insert("a", &2).await?;
        let later = async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let a = session.get::<i64>("a").await?.unwrap();
            session.insert("a", &100).await?;
            Ok::<_, StoreError>(Bytes::from(a.to_string()))
        };
        let first = futures_util::stream::iter([Ok(Bytes::from("one ")), Ok(Bytes::from("two "))]);
        let stream = futures_util::StreamExt::chain(first, futures_util::stream::once(later));
        Ok(HttpResponse::Ok().streaming(stream))
    }

    async fn panics(session: Session) -> HttpResponse {
        session.insert("a", &98).await.unwrap();
        panic!("as handlers do");
    }

    async fn upgrade(session: Session, payload: Payload) -> Result<HttpResponse, StoreError> {
        session.insert("a", &3).await?;
        Ok(HttpResponse::SwitchingProtocols().upgrade("websocket").streaming(payload))
    }
}
