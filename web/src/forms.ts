import { ApiError } from "./api";
import { sentence } from "./text";

function fieldError(input: HTMLInputElement, message: string): void {
  const note = document.createElement("p");
  note.className = "field-error";
  note.id = `${input.id}-error`;
  note.textContent = message;
  input.after(note);
  input.dataset.describedby = input.getAttribute("aria-describedby") ?? "";
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", `${note.id} ${input.dataset.describedby}`.trim());
}

function clearErrors(view: HTMLElement): void {
  for (const note of view.querySelectorAll(".field-error")) note.remove();
  for (const input of view.querySelectorAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    input.setAttribute("aria-describedby", (input as HTMLElement).dataset.describedby ?? "");
  }
  alertOf(view).hidden = true;
}

function alertOf(view: HTMLElement): HTMLElement {
  return view.querySelector(".alert") as HTMLElement;
}

/** What to say of a failure above a form. */
export function explain(failure: unknown): string {
  if (!(failure instanceof ApiError)) return String(failure);
  // Some texts of the server name the time themselves.
  if (failure.retryAfterSeconds === null || /retry after/i.test(failure.message)) return failure.message;
  return `${sentence(failure.message)} Try again in ${failure.retryAfterSeconds} seconds.`;
}

/** Puts each refused field's reason under its input, and what has no input above the form. */
export function showFailure(view: HTMLElement, failure: unknown): void {
  let first: HTMLInputElement | null = null;
  for (const { pointer, detail } of failure instanceof ApiError ? failure.fields : []) {
    const input = view.querySelector<HTMLInputElement>(
      `input[name="${CSS.escape(pointer.replace(/^\//, ""))}"]`,
    );
    if (!input || input.hasAttribute("aria-invalid")) continue;
    fieldError(input, detail);
    first ??= input;
  }
  if (first) {
    first.focus();
    return;
  }
  const alert = alertOf(view);
  alert.textContent = explain(failure);
  alert.hidden = false;
}

/** Runs what a view's button stands for: once at a time, and with its failure shown in the view. */
export async function attempt(view: HTMLElement, action: () => Promise<void>): Promise<void> {
  const buttons = view.querySelectorAll("button");
  clearErrors(view);
  for (const button of buttons) button.disabled = true;
  try {
    await action();
  } catch (failure) {
    showFailure(view, failure);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

/** Sends a form's fields through `send` when it is submitted; empty required fields are pointed out here. */
export function onSubmit(
  form: HTMLFormElement,
  send: (fields: Record<string, string>) => Promise<void>,
): void {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void attempt(form, async () => {
      const inputs = [...form.querySelectorAll("input")];
      const empty = inputs.filter((input) => input.required && input.value === "");
      if (empty.length > 0) {
        throw new ApiError(
          "",
          0,
          empty.map((input) => ({ pointer: `/${input.name}`, detail: "Please fill this in." })),
        );
      }
      await send(Object.fromEntries(inputs.map((input) => [input.name, input.value])));
      form.reset();
    });
  });
}
