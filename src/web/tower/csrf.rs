use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower_layer::Layer;
use tower_service::Service;

use super::super::csrf::{CsrfSite, Head, Refusal, Target};
use super::super::form::{FormReader, TooLarge};
use super::{Answer, cookies_of, failure, finish, plain, take_ready};
use crate::settings::Settings;
use crate::web::{Csrf, CsrfOptions, Session};

/// Refuses forged requests, and gives each other one its [`Csrf`]: Django's `CsrfViewMiddleware`.
///
/// - What changes something (any method but GET, HEAD, OPTIONS, TRACE) needs the browser's secret, a token of it, and an
///   `Origin` or, over HTTPS, a `Referer` of this site or of `CSRF_TRUSTED_ORIGINS`. Otherwise it gets 403, its handler is
///   not called, and the log says why, in Django's words (target `django.security.csrf`). The response's extensions hold
///   [`Rejected`](crate::contrib::csrf::Rejected), for a page of your own.
/// - The token is in a form's field `csrfmiddlewaretoken` or in the header `X-CSRFToken`. Only forms are read for it, and
///   the handler gets them unchanged.
/// - The cookie is set with a response whose handler asked for a token or rotated the secret, as is `Vary: Cookie`. With
///   `CSRF_USE_SESSIONS` it is the session that is changed; then the layer stands inside of
///   [`SessionLayer`](super::SessionLayer).
///
/// Routes without the layer are not checked, as with `csrf_exempt`.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, routing::get};
/// use django_sessions::crypto::{RandomError, SecretKeys};
/// use django_sessions::settings::Settings;
/// use django_sessions::web::Csrf;
/// use django_sessions::web::tower::CsrfLayer;
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
/// let settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
/// let app: Router = Router::new().route("/", get(form).post(submit)).layer(CsrfLayer::new(settings));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CsrfLayer {
    site: Arc<CsrfSite>,
}

impl CsrfLayer {
    /// For a server without TLS and without a proxy, which is called by any name.
    pub fn new(settings: impl Into<Arc<Settings>>) -> Self {
        Self::with_options(settings, CsrfOptions::default())
    }

    /// For a server as these options describe it.
    pub fn with_options(settings: impl Into<Arc<Settings>>, options: CsrfOptions) -> Self {
        Self { site: Arc::new(CsrfSite::new(settings.into(), options)) }
    }
}

impl<S> Layer<S> for CsrfLayer {
    type Service = CsrfService<S>;

    fn layer(&self, inner: S) -> CsrfService<S> {
        CsrfService { inner, site: self.site.clone() }
    }
}

/// What [`CsrfLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct CsrfService<S> {
    inner: S,
    site: Arc<CsrfSite>,
}

impl<S, B, ResponseBody> Service<Request<B>> for CsrfService<S>
where
    S: Service<Request<Replayed<B>>, Response = Response<ResponseBody>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Send,
    ResponseBody: From<&'static str> + Send,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = Answer<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let site = self.site.clone();
        Box::pin(async move {
            let session = request.extensions().get::<Session>().cloned();
            let of_outer_layer = request.extensions().get::<Csrf>().cloned();
            let is_outermost = of_outer_layer.is_none();
            let csrf = match of_outer_layer {
                Some(csrf) => csrf,
                None => match Csrf::begin(&site, &cookies_of(&request), session.as_ref()).await {
                    Ok(csrf) => csrf,
                    Err(error) => return Ok(failure(&error)),
                },
            };
            let mut request = request.map(Replayed::new);
            let response = match check(&site, &csrf, &mut request).await {
                Ok(()) => {
                    request.extensions_mut().insert(csrf.clone());
                    inner.call(request).await?
                }
                Err(refusal) => refused(refusal),
            };
            match is_outermost {
                true => Ok(finish(response, csrf.finish(session.as_ref()).await)),
                false => Ok(response),
            }
        })
    }
}

async fn check<B>(site: &CsrfSite, csrf: &Csrf, request: &mut Request<Replayed<B>>) -> Result<(), Refusal>
where
    B: Body + Unpin,
{
    let head = head(site, request);
    let Some(form) = csrf.before_body(site, &head)? else { return Ok(()) };
    let token = request.body_mut().read_token(form, head.content_length).await?;
    csrf.after_body(site, &head, token.as_deref())
}

fn head<B>(site: &CsrfSite, request: &Request<B>) -> Head {
    let uri = request.uri();
    let target = Target {
        method: request.method().as_str(),
        path: uri.path(),
        authority: uri.authority().map(|authority| authority.as_str()),
        is_https: uri.scheme_str() == Some("https"),
    };
    site.head(target, |name| header(request.headers(), name))
}

/// All headers of a name as one, in Latin-1, as WSGI has it.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let texts =
        headers.get_all(name).iter().map(|value| value.as_bytes().iter().copied().map(char::from).collect());
    texts.reduce(|all: String, text: String| all + "," + &text)
}

fn refused<B: From<&'static str>>(refusal: Refusal) -> Response<B> {
    let mut response = plain(refusal.answer());
    if let Refusal::Forged(rejected) = refusal {
        response.extensions_mut().insert(rejected);
    }
    response
}

/// The body of a request that was checked: what was read for the check, then the rest.
#[derive(Debug)]
pub struct Replayed<B: Body> {
    read: Option<Bytes>,
    /// What came after that, and is no data.
    then: Option<Result<Frame<Bytes>, B::Error>>,
    rest: B,
}

// Neither of the others is ever pinned.
impl<B: Body + Unpin> Unpin for Replayed<B> {}

impl<B: Body + Unpin> Replayed<B> {
    fn new(rest: B) -> Self {
        Self { read: None, then: None, rest }
    }

    async fn read_token(&mut self, mut form: FormReader, length: u64) -> Result<Option<String>, TooLarge> {
        // A length that is said is refused before all of it is sent.
        form.expect(length)?;
        let mut wants_more = true;
        while wants_more {
            match poll_fn(|context| poll_bytes(&mut self.rest, context)).await {
                None => break,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => wants_more = form.push(&data)?,
                    Err(trailers) => {
                        self.then = Some(Ok(trailers));
                        break;
                    }
                },
                // Whoever reads on meets it.
                Some(Err(error)) => {
                    self.then = Some(Err(error));
                    break;
                }
            }
        }
        let (token, read) = form.finish()?;
        self.read = (!read.is_empty()).then(|| read.into());
        Ok(token)
    }
}

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

fn poll_bytes<B: Body + Unpin>(body: &mut B, context: &mut Context<'_>) -> Polled<B::Error> {
    let to_bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
    Pin::new(body).poll_frame(context).map_ok(|frame| frame.map_data(to_bytes))
}

impl<B: Body + Unpin> Body for Replayed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled<B::Error> {
        let this = &mut *self;
        let first = this.read.take().map(|read| Ok(Frame::data(read)));
        match first.or_else(|| this.then.take()) {
            Some(frame) => Poll::Ready(Some(frame)),
            None => poll_bytes(&mut this.rest, context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.then.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.as_ref().map_or(0, |read| read.len() as u64);
        let mut hint = self.rest.size_hint();
        // The upper bound first: it is never below the lower one.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + read);
        }
        hint.set_lower(hint.lower() + read);
        hint
    }
}
