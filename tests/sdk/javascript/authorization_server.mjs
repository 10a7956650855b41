// The certified OAuth server oidc-provider with refresh token rotation and reuse detection, and an API that takes its
// tokens, on one port of loopback, laid out as Genesys Cloud's are. Its options are its argument, in JSON:
//   lifetime  seconds of an access token
//   clients   as oidc-provider takes them, each with the organization that its tokens belong to
// It writes its URL, and ends when its standard input does.
//
// POST /control/login   {"client": ID}: a new refresh token, as if somebody had logged in
// GET  /control/ledger  what became of token requests and calls

import { createServer } from "node:http";
import Provider, { errors } from "oidc-provider";

const options = JSON.parse(process.argv[2]);
const organizations = new Map(options.clients.map((client) => [client.client_id, client.organization]));
const ledger = { granted: {}, refused: {}, reuses: 0, accepted: 0, rejected: 0 };
const count = (table, name) => { table[name] = (table[name] ?? 0) + 1; };

const server = createServer((request, response) => answer(request, response).catch((error) => {
  console.error(error);
  response.writeHead(500).end();
}));
server.listen(0, "127.0.0.1", () => {
  url = `http://127.0.0.1:${server.address().port}`;
  provider = start(url);
  console.log(url);
});
process.stdin.resume().on("end", () => process.exit(0));

let url;
let provider;
let callback;

function start(issuer) {
  const made = new Provider(issuer, {
    clients: options.clients.map(({ organization, ...client }) => client),
    ttl: { AccessToken: options.lifetime, ClientCredentials: options.lifetime, RefreshToken: 86400, Grant: 86400,
      Session: 600, Interaction: 600, AuthorizationCode: 60 },
    rotateRefreshToken: true,
    issueRefreshToken: async (ctx, client) => client.grantTypeAllowed("refresh_token"),
    expiresWithSession: async () => false,
    findAccount: async (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    loadExistingGrant: async (ctx) => consent(ctx.oidc.client.clientId, ctx.oidc.session.accountId),
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    pkce: { required: () => true },
    routes: { token: "/oauth/token", authorization: "/oauth/authorize" },
    scopes: ["messaging:write", "users:read"],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: (ctx, resource) => {
          if (resource !== "https://partner.example") throw new errors.InvalidTarget();
          return { scope: "messaging:write", accessTokenFormat: "opaque", accessTokenTTL: options.lifetime };
        },
      },
    },
    cookies: { keys: ["made-up"] },
  });
  const grant = (ctx) => ctx.oidc.params?.grant_type ?? "none";
  made.on("grant.success", (ctx) => count(ledger.granted, grant(ctx)));
  made.on("grant.error", (ctx, error) => {
    count(ledger.refused, error.error);
    if (error.error_detail === "refresh token already used") ledger.reuses += 1;
  });
  made.on("server_error", (ctx, error) => console.error(error));
  callback = made.callback();
  return made;
}

async function consent(clientId, accountId) {
  const grant = new provider.Grant({ clientId, accountId });
  grant.addOIDCScope("messaging:write users:read");
  grant.addResourceScope("https://partner.example", "messaging:write");
  await grant.save();
  return grant;
}

async function answer(request, response) {
  const { pathname } = new URL(request.url, url);
  if (pathname.startsWith("/interaction/")) {
    await provider.interactionFinished(request, response, { login: { accountId: "agent" } });
  } else if (pathname === "/control/login") {
    json(response, 200, { refresh_token: await login(JSON.parse(await read(request)).client) });
  } else if (pathname === "/control/ledger") {
    json(response, 200, ledger);
  } else if (pathname.startsWith("/api/")) {
    await api(request, response, pathname);
  } else {
    callback(request, response);
  }
}

async function login(clientId) {
  const client = await provider.Client.find(clientId);
  const { jti: grantId } = await consent(clientId, "agent");
  const token = new provider.RefreshToken({
    client, accountId: "agent", grantId, gty: "authorization_code", scope: "messaging:write users:read", rotations: 0,
  });
  return token.save();
}

async function api(request, response, pathname) {
  const value = (request.headers.authorization ?? "").replace(/^Bearer /, "");
  const token = (await provider.AccessToken.find(value)) ?? (await provider.ClientCredentials.find(value));
  await read(request);
  if (token === undefined || token.isExpired) {
    ledger.rejected += 1;
    json(response, 401, { message: "Invalid login credentials.", code: "bad.credentials", status: 401 });
    return;
  }
  ledger.accepted += 1;
  const organization = organizations.get(token.clientId);
  if (pathname === "/api/v2/organizations/me") json(response, 200, organization);
  else if (pathname === "/api/v2/tokens/me") {
    json(response, 200, { organization, authorizedScope: [...(token.scopes ?? [])] });
  } else json(response, 200, { method: request.method, client: token.clientId, audience: token.aud });
}

async function read(request) {
  let body = "";
  for await (const piece of request) body += piece;
  return body;
}

function json(response, status, body) {
  const text = JSON.stringify(body);
  const length = Buffer.byteLength(text);
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": length }).end(text);
}
