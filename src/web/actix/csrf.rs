use std::future::{Ready, poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::HttpMessage;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::error::{PayloadError, ResponseError};
use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use futures_core::Stream;

use super::super::csrf::{CsrfSite, Head, Refusal, Target};
use super::super::form::{FormReader, TooLarge};
use super::{Answer, apply, cookies_of, finish, plain};
use crate::settings::Settings;
use crate::web::{Csrf, CsrfOptions, Session};

/// Refuses forged requests, and gives each other one its [`Csrf`]: Django's `CsrfViewMiddleware`. The rules are those of
/// [`CsrfLayer`](https://docs.rs/django-sessions/latest/django_sessions/web/tower/struct.CsrfLayer.html). With
/// `CSRF_USE_SESSIONS` it stands inside of [`SessionMiddleware`](super::SessionMiddleware), that is, it is wrapped before.
///
/// ```
/// use actix_web::{App, web};
/// use django_sessions::crypto::SecretKeys;
/// use django_sessions::settings::Settings;
/// use django_sessions::web::Csrf;
/// use django_sessions::web::actix::CsrfMiddleware;
///
/// async fn form(csrf: Csrf) -> String {
///     let token = csrf.token().expect("the system has randomness");
///     format!(r#"<form method="post"><input type="hidden" name="csrfmiddlewaretoken" value="{token}">"#)
/// }
///
/// async fn submit() -> &'static str {
///     "This came from our own form."
/// }
///
/// let csrf = CsrfMiddleware::new(Settings::new(SecretKeys::new("the site's SECRET_KEY")));
/// let app = App::new().wrap(csrf).route("/", web::get().to(form)).route("/", web::post().to(submit));
/// ```
#[derive(Clone, Debug)]
pub struct CsrfMiddleware {
    site: Arc<CsrfSite>,
}

impl CsrfMiddleware {
    /// For a server without a proxy, which is called by any name.
    pub fn new(settings: impl Into<Arc<Settings>>) -> Self {
        Self::with_options(settings, CsrfOptions::default())
    }

    /// For a server as these options describe it.
    pub fn with_options(settings: impl Into<Arc<Settings>>, options: CsrfOptions) -> Self {
        Self { site: Arc::new(CsrfSite::new(settings.into(), options)) }
    }
}

impl<S, B> Transform<S, ServiceRequest> for CsrfMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = CsrfService<S>;
    type InitError = ();
    type Future = Ready<Result<CsrfService<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(CsrfService { service: Rc::new(service), site: self.site.clone() }))
    }
}

/// What [`CsrfMiddleware`] makes of a service.
#[derive(Debug)]
pub struct CsrfService<S> {
    service: Rc<S>,
    site: Arc<CsrfSite>,
}

impl<S, B> Service<ServiceRequest> for CsrfService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = Answer<B>;

    forward_ready!(service);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let (service, site) = (self.service.clone(), self.site.clone());
        Box::pin(async move {
            let session = request.extensions().get::<Session>().cloned();
            let of_outer_middleware = request.extensions().get::<Csrf>().cloned();
            let is_outermost = of_outer_middleware.is_none();
            let csrf = match of_outer_middleware {
                Some(csrf) => csrf,
                None => match Csrf::begin(&site, &cookies_of(&request), session.as_ref()).await {
                    Ok(csrf) => csrf,
                    Err(error) => {
                        return Ok(request.into_response(error.error_response()).map_into_right_body());
                    }
                },
            };
            let checked = check(&site, &csrf, &mut request).await;
            let finished = async || match is_outermost {
                true => csrf.finish(session.as_ref()).await,
                false => Ok(Default::default()),
            };
            match checked {
                Ok(()) => {
                    request.extensions_mut().insert(csrf.clone());
                    let result = service.call(request).await;
                    finish(result, finished().await)
                }
                Err(refusal) => {
                    let mut response = plain(refusal.answer());
                    if let Refusal::Forged(rejected) = refusal {
                        response.extensions_mut().insert(rejected);
                    }
                    match finished().await {
                        Ok(finished) => apply(response.headers_mut(), finished),
                        Err(error) => response = error.error_response(),
                    }
                    Ok(request.into_response(response).map_into_right_body())
                }
            }
        })
    }
}

async fn check(site: &CsrfSite, csrf: &Csrf, request: &mut ServiceRequest) -> Result<(), Refusal> {
    let head = head(site, request);
    let Some(form) = csrf.before_body(site, &head)? else { return Ok(()) };
    let payload = request.take_payload();
    let (token, payload) = read_token(payload, form, &head).await?;
    request.set_payload(payload);
    csrf.after_body(site, &head, token.as_deref())
}

fn head(site: &CsrfSite, request: &ServiceRequest) -> Head {
    let uri = request.uri();
    let target = Target {
        method: request.method().as_str(),
        path: uri.path(),
        authority: uri.authority().map(|authority| authority.as_str()),
        is_https: uri.scheme_str() == Some("https") || request.app_config().secure(),
    };
    site.head(target, |name| header(request.headers(), name))
}

type BoxedPayloadStream = Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>;

/// All headers of a name as one, in Latin-1, as WSGI has it.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let texts = headers.get_all(name).map(|value| value.as_bytes().iter().copied().map(char::from).collect());
    texts.reduce(|all: String, text: String| all + "," + &text)
}

/// The token of a form, and the same body again.
async fn read_token(
    mut payload: Payload,
    mut form: FormReader,
    head: &Head,
) -> Result<(Option<String>, Payload), TooLarge> {
    // A length that is said is refused before all of it is sent.
    form.expect(head.content_length)?;
    let (mut wants_more, mut error) = (true, None);
    while wants_more {
        match poll_fn(|context| Pin::new(&mut payload).poll_next(context)).await {
            None => break,
            Some(Ok(data)) => wants_more = form.push(&data)?,
            // Whoever reads on meets it.
            Some(Err(found)) => {
                error = Some(found);
                break;
            }
        }
    }
    let (token, read) = form.finish()?;
    let read = (!read.is_empty()).then(|| Bytes::from(read));
    let replayed: BoxedPayloadStream = Box::pin(Replayed { read, error, rest: payload });
    Ok((token, Payload::Stream { payload: replayed }))
}

/// What was read for the check, then the rest.
struct Replayed {
    read: Option<Bytes>,
    error: Option<PayloadError>,
    rest: Payload,
}

impl Stream for Replayed {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let first = this.read.take().map(Ok);
        match first.or_else(|| this.error.take().map(Err)) {
            Some(item) => Poll::Ready(Some(item)),
            None => Pin::new(&mut this.rest).poll_next(context),
        }
    }
}
