import { csrfToken } from "./csrf";

/** One field the server refused, named by JSON pointer. */
export interface FieldError {
  pointer: string;
  detail: string;
}

interface Envelope<T> {
  success: boolean;
  data: T | null;
  error: string | null;
  error_detail: { retry_after?: number | null; errors?: FieldError[] } | null;
}

/** An answer that is no success. `status` is 0 when there was no answer at all. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly fields: FieldError[] = [],
    readonly retryAfterSeconds: number | null = null,
  ) {
    super(message);
  }
}

/** Calls `/api/v1` and unwraps the envelope; every failure is an {@link ApiError}. */
export async function call<T>(method: "GET" | "POST", path: string, body?: unknown): Promise<T> {
  const headers = new Headers({ Accept: "application/json" });
  if (body !== undefined) headers.set("Content-Type", "application/json");
  const token = csrfToken(document.cookie);
  if (method !== "GET" && token) headers.set("X-CSRF-Token", token);

  let response: Response;
  try {
    response = await fetch(`/api/v1${path}`, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
    });
  } catch {
    throw new ApiError("The server cannot be reached.", 0);
  }
  if (response.status === 204) return undefined as T;

  const envelope = (await response.json().catch(() => null)) as Envelope<T> | null;
  if (response.ok && envelope?.success) return envelope.data as T;
  throw new ApiError(
    envelope?.error ?? `The server answered with status ${response.status}.`,
    response.status,
    envelope?.error_detail?.errors ?? [],
    envelope?.error_detail?.retry_after ?? null,
  );
}
