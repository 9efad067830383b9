// The gateway on Railway: `railway config plan` shows what would change, `railway config apply` applies it.
// docs/deploy/railway.md explains the choices.
import { defineRailway, github, group, postgres, preserve, project, redis, service } from "railway/iac";

// The branch that production follows.
const source = github("OWNER/atalaya", { branch: "main", checkSuites: true });
const build = { builder: "DOCKERFILE", dockerfilePath: "Dockerfile" } as const;

export default defineRailway((context) => {
  const production = context.isEnvironment("production");
  const database = postgres("postgres");
  const limits = redis("redis");

  // Keys are set once, as sealed variables: docs/deploy/railway.md#first-deployment
  const records = {
    ENVIRONMENT: "production",
    DATABASE_URL: database.env.DATABASE_URL,
    LEDGER__SIGNING_KEY: preserve(),
  };

  const gateway = service("gateway", {
    source,
    build,
    env: {
      ...records,
      AUTH__SIGNING_KEY: preserve(),
      AUTH__DATA_KEY: preserve(),
      REDIS_URL: limits.env.REDIS_URL,
      // The private network can be IPv6 only; "::" listens on IPv4, too.
      HOST: "::",
      PORT: "8000",
      // A gateway whose metrics are watched never pauses its background work, and so would never sleep.
      ...(production && { METRICS_PORT: "9090" }),
      // Railway's proxies connect from this network.
      LIMITS__TRUSTED_PROXIES: "100.64.0.0/10",
      DRAIN_SECONDS: "5",
    },
    replicas: production ? 2 : 1,
    healthcheck: "/readyz",
    healthcheckTimeout: 120,
    deploy: {
      // The old deployment serves until the new one does, and then drains: DRAIN_SECONDS and 8 seconds more.
      overlapSeconds: 5,
      drainingSeconds: 20,
      restartPolicyType: "ON_FAILURE",
      restartPolicyMaxRetries: 10,
      // Only where nobody waits for a response: the first request after ten quiet minutes waits for a start.
      sleepApplication: !production,
      limitOverride: { containers: { cpu: 2, memoryBytes: 512 * 1024 * 1024 } },
    },
  });

  // A second service, because a service with a schedule runs only then. The command ends by itself.
  const upkeep = service("upkeep", {
    source,
    build,
    env: records,
    start: "atalaya upkeep --yes --json",
    deploy: {
      cronSchedule: "17 3 * * *",
      restartPolicyType: "NEVER",
      limitOverride: { containers: { cpu: 1, memoryBytes: 256 * 1024 * 1024 } },
    },
  });

  return project("atalaya", { resources: [group("Gateway", [gateway, upkeep]), group("Data", [database, limits])] });
});
