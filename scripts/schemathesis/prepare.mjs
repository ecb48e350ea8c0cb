// Makes the first account of the server at this address and prints an API key that may do everything.
const [base] = process.argv.slice(2);

async function post(path, body, token) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const answer = await fetch(`${base}/api/v1${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}: ${await answer.text()}`);
  return { cookies: answer.headers.getSetCookie(), data: (await answer.json()).data };
}

const account = { username: "owner", password: "correct horse battery staple" };
const { cookies } = await post("/auth/setup", account);
const session = cookies.map((cookie) => /^session=([^;]+)/.exec(cookie)?.[1]).find(Boolean);
const key = await post("/auth/api-keys", { name: "questions", role: "ceo" }, session);
process.stdout.write(key.data.api_key);
