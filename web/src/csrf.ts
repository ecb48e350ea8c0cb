/** The cookie a browser session echoes in a header, so that another site cannot act in its name. */
export function csrfToken(cookies: string): string | null {
  for (const pair of cookies.split(";")) {
    const [name, ...value] = pair.trim().split("=");
    if (name === "csrf_token") return value.join("=") || null;
  }
  return null;
}
