// Shows the OpenAPI document of this server. Everything is inserted as text, never as HTML.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];

function make(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map(String).join(" | ");
  if ("const" in schema) return String(schema.const);
  if (schema.type === "array") return `${typeOf(schema.items) || "any"}[]`;
  return [schema.type || "any"].flat().join(" | ");
}

function table(rows) {
  const body = make("tbody");
  for (const cells of rows) {
    const [name, ...others] = cells;
    body.append(make("tr", "", make("td", "", make("code", name)), ...others.map((text) => make("td", text))));
  }
  return make("table", "", body);
}

function showParameters(parameters) {
  const rows = parameters.map((one) => [one.name, one.in, typeOf(one.schema), one.description]);
  return rows.length ? [make("h3", "Parameters"), table(rows)] : [];
}

function showContent(content) {
  return Object.entries(content || {}).map(([type, { schema }]) => (schema ? `${type}: ${typeOf(schema)}` : type)).join(", ");
}

function showOperation(path, method, operation, shared) {
  const details = make("details", "", make("summary", "", make("b", method), make("code", path), ` ${operation.summary}`));
  details.id = operation.operationId;
  details.append(...showParameters([...shared, ...(operation.parameters || [])]));
  if (operation.requestBody) details.append(make("h3", "Body"), make("p", showContent(operation.requestBody.content)));
  const rows = Object.entries(operation.responses).sort().map(([status, one]) => [status, one.description, showContent(one.content)]);
  details.append(make("h3", "Answers"), table(rows));
  return details;
}

function showSchema(name, schema) {
  const details = make("details", "", make("summary", "", make("code", name)));
  const rows = Object.entries(schema.properties || {}).map(([field, one]) => [
    field,
    typeOf(one),
    [one.description, "default" in one && one.default !== null ? `default ${JSON.stringify(one.default)}` : ""].filter(Boolean).join("; "),
  ]);
  details.append(rows.length ? table(rows) : make("pre", JSON.stringify(schema, null, 2)));
  return details;
}

function show(api) {
  document.getElementById("about").textContent = `${api.info.description} Version ${api.info.version}.`;
  const main = document.getElementById("operations");
  for (const tag of api.tags) {
    main.append(make("h2", tag.name), make("small", tag.description));
    for (const [path, item] of Object.entries(api.paths)) {
      for (const method of METHODS.filter((one) => item[one]?.tags.includes(tag.name))) {
        main.append(showOperation(path, method, item[method], item.parameters || []));
      }
    }
  }
  main.append(make("h2", "schemas"), make("small", "Objects of requests and answers"));
  for (const [name, schema] of Object.entries(api.components.schemas)) main.append(showSchema(name, schema));
}

async function load() {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`/openapi.json: status ${answer.status}`);
  show(await answer.json());
}

load().catch((error) => {
  const box = document.getElementById("error");
  box.textContent = error.message;
  box.hidden = false;
});
