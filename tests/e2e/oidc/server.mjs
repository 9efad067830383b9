// A real OpenID provider on loopback, with new keys at every start: `node server.mjs PORT`.
// Any name with any password logs in as a person of the group "operators"; `service` is a client with a secret.
// GET /fetches returns how often the keys have been read.
import { generateKeyPairSync } from 'node:crypto'
import { createServer } from 'node:http'
import Provider from 'oidc-provider'

const port = Number(process.argv[2])
const TTL_S = 600

const privateJwk = (type, options, alg) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
  alg,
  use: 'sig',
})

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: 'service',
      client_secret: 'service-secret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
    {
      client_id: 'site',
      client_secret: 'site-secret',
      grant_types: ['authorization_code'],
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
    },
  ],
  jwks: {
    keys: [
      privateJwk('rsa', { modulusLength: 2048 }, 'RS256'),
      privateJwk('ec', { namedCurve: 'P-256' }, 'ES256'),
      privateJwk('rsa', { modulusLength: 2048 }, 'PS256'),
      privateJwk('ed25519', {}, 'EdDSA'),
    ],
  },
  enabledJWA: {
    idTokenSigningAlgValues: ['RS256', 'ES256', 'PS256', 'EdDSA'],
  },
  cookies: { keys: ['loopback only'] },
  pkce: { required: () => false },
  ttl: {
    AccessToken: TTL_S,
    AuthorizationCode: 60,
    ClientCredentials: TTL_S,
    Grant: TTL_S,
    IdToken: TTL_S,
    Interaction: TTL_S,
    Session: TTL_S,
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  extraTokenClaims: (_, token) => ({ groups: token.accountId ? ['staff', 'operators'] : undefined }),
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      // `urn:NAME?alg=ES256` is a resource whose tokens are signed with that algorithm.
      getResourceServerInfo: (_, resource) => ({
        accessTokenFormat: 'jwt',
        audience: resource.split('?')[0],
        scope: 'land:read land:admin',
        jwt: { sign: { alg: resource.split('alg=')[1] ?? 'RS256' } },
      }),
    },
  },
})

const handle = provider.callback()
let fetches = 0

createServer((request, response) => {
  if (request.url === '/fetches') {
    response.end(JSON.stringify({ fetches }))
    return
  }
  fetches += request.url === '/jwks' ? 1 : 0
  handle(request, response)
}).listen(port, '127.0.0.1', () => console.log('ready'))
