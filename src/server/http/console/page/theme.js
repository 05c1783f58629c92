// Runs before anything is painted, so that a page that was set dark does not begin light.
"use strict";
try {
  const theme = localStorage.getItem("voisin.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing shows what the system prefers.
}
