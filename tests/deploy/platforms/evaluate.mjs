// Prints the graph of resources that railway.ts beside this file defines for the environment named by the argument.
import { createRailwayContext, project, validateGraph } from "railway/iac";
import program from "./railway.ts";

const environment = process.argv[2];
const { name, resources } = await program(createRailwayContext({ environment }), project);
const graph = { version: 1, project: { name }, environments: [{ name: environment }], resources: resources.flat(), edges: [] };
console.log(JSON.stringify({ problems: validateGraph(graph), resources: graph.resources }));
