"use strict";
// In the head, so that no page is painted in another theme first.
try { const theme = localStorage.getItem("daso-theme"); if (theme) document.documentElement.dataset.theme = theme; } catch { /* files may have no storage */ }
