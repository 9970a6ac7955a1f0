"""path("account/devices/", include("django_rust_sessions.devices.urls"))"""

from django.urls import path

from . import views

app_name = "session_devices"
urlpatterns = [
    path("", views.devices, name="list"),
    path("<int:pk>/end/", views.end, name="end"),
    path("end-others/", views.end_others, name="end_others"),
]
