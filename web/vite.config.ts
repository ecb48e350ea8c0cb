import { defineConfig } from "vitest/config";

// Two pages with nothing in common: the welcome page lives in /assets, the API reference in /docs/assets,
// because the server sends another content security policy below /docs.
const folder = (name: string) => (/^(welcome|csrf)\b/.test(name) ? "assets" : "docs/assets");

export default defineConfig({
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    // The terms of what is bundled travel with it.
    license: { fileName: "docs/assets/licenses.txt" },
    // The reference is one large script by nature; it is loaded once and cached for good.
    chunkSizeWarningLimit: 6000,
    rolldownOptions: {
      input: { welcome: "index.html", reference: "docs/api.html" },
      output: {
        entryFileNames: (chunk) => `${folder(chunk.name)}/[name]-[hash].js`,
        chunkFileNames: (chunk) => `${folder(chunk.name)}/[name]-[hash].js`,
        assetFileNames: (asset) => `${folder(asset.names[0] ?? "")}/[name]-[hash][extname]`,
      },
    },
  },
  test: { include: ["src/**/*.test.ts"] },
});
