// The official JavaScript SDK, driven over standard input: a JSON object a line in, one a line out.
//
// {"do": name, ...} calls the function of that name with the other members. The answer is {"value": ...}, or
// {"error": {"status": ..., "body": ...}} where the SDK rejected with what its callers meet.

'use strict';

const readline = require('node:readline');
const sdk = require('purecloud-platform-client-v2');

const client = sdk.ApiClient.instance;
const OAUTH = ['PureCloud OAuth'];
const JSON_ONLY = ['application/json'];

function call(method, path, body = null) {
  return client.callApi(path, method, {}, {}, {}, {}, body, OAUTH, JSON_ONLY, JSON_ONLY);
}

function forget() {
  client.clearAccessToken();
  client.authData = {};
}

const accessToken = () => client.authData.accessToken;

const program = {
  // --- settings ---

  // The gateway in code.
  gateway(settings) {
    forget();
    client.setGateway(settings);
  },

  // The API's base path in code; login stays where the environment says.
  host({ url }) {
    forget();
    client.setGateway(undefined);
    client.config.basePath = url;
  },

  // --- logins ---

  async client_credentials({ client_id, secret }) {
    await client.loginClientCredentialsGrant(client_id, secret);
    return accessToken();
  },

  async code({ client_id, secret, code, redirect_uri }) {
    await client.loginCodeAuthorizationGrant(client_id, secret, code, redirect_uri);
    return accessToken();
  },

  async pkce({ client_id, verifier, code, redirect_uri }) {
    await client.authorizePKCEGrant(client_id, verifier, code, redirect_uri);
    return accessToken();
  },

  async refresh({ client_id, secret, refresh_token }) {
    client.clientId = client_id;
    client.clientSecret = secret;
    await client.refreshCodeAuthorizationGrant(client_id, secret, refresh_token);
    return accessToken();
  },

  // --- the API ---

  organization: async () => (await new sdk.OrganizationApi().getOrganizationsMe()).name,

  token: async () => (await new sdk.TokensApi().getTokensMe()).organization.name,

  row: ({ table, row }) => new sdk.ArchitectApi().getFlowsDatatableRow(table, row),

  echo: () => call('GET', '/api/v2/echo'),

  // A POST that the SDK has no method for, by the one that all of its methods call.
  write: async ({ external_id }) => (await call('POST', '/api/v2/messaging/contacts', { externalId: external_id })).id,

  // Calls at once; the names that came back.
  many: ({ calls }) => Promise.all(Array.from({ length: calls }, program.organization)),

  // --- guests, whose JWT takes the place of the SDK's token ---

  async guest_exchange({ deployment, code }) {
    const request = { deploymentId: deployment, oauth: { code } };
    const answer = await new sdk.WebDeploymentsApi().postWebdeploymentsTokenOauthcodegrantjwtexchange(request);
    return [answer.jwt, answer.refreshToken];
  },

  async guest_refresh({ refresh_token }) {
    const body = { refreshToken: refresh_token };
    return (await new sdk.WebDeploymentsApi().postWebdeploymentsTokenRefresh({ body })).jwt;
  },

  async guest_messages({ jwt }) {
    client.setAccessToken(jwt);
    return (await new sdk.WebMessagingApi().getWebmessagingMessages()).total;
  },

  async guest_revoke({ jwt }) {
    client.setAccessToken(jwt);
    await new sdk.WebDeploymentsApi().deleteWebdeploymentsTokenRevoke();
  },
};

async function answer({ do: name, ...members }) {
  try {
    return { value: (await program[name](members)) ?? null };
  } catch (error) {
    if (!(error instanceof Error)) return { error: { status: error?.status ?? null, body: error } }; // the answer's body
    return { error: { status: error.response?.status ?? null, body: error.response?.data ?? error.message } };
  }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
  }
}

main();
