BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE api_keys (
	id VARCHAR(16) NOT NULL, 
	user_id VARCHAR(36) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	secret_digest VARCHAR(64) NOT NULL, 
	previous_digest VARCHAR(64), 
	previous_until DATETIME, 
	scopes VARCHAR(255) NOT NULL, 
	addresses VARCHAR(1024) NOT NULL, 
	rate VARCHAR(32), 
	monthly_requests BIGINT, 
	monthly_megapixels BIGINT, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	revoked_at DATETIME, 
	last_used_at DATETIME, 
	CONSTRAINT pk_api_keys PRIMARY KEY (id), 
	CONSTRAINT fk_api_keys_user_id_users FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);
INSERT INTO "api_keys" VALUES('c9314ce09e8e966e','a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','maps','59030cc058edef5d99aeba3d66698944a26f7101af86392ba1d36182cd33ff75',NULL,NULL,'predict','',NULL,NULL,NULL,'2026-11-25 22:23:07.394930','2027-02-23 22:23:07.394897',NULL,NULL);
CREATE TABLE audit_events (
	seq BIGINT NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	at VARCHAR(27) NOT NULL, 
	event VARCHAR(32) NOT NULL, 
	outcome VARCHAR(32) NOT NULL, 
	actor VARCHAR(320) NOT NULL, 
	target VARCHAR(320) NOT NULL, 
	address VARCHAR(64) NOT NULL, 
	request_id VARCHAR(64) NOT NULL, 
	detail TEXT NOT NULL, 
	count INTEGER NOT NULL, 
	previous VARCHAR(64) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_audit_events PRIMARY KEY (seq), 
	CONSTRAINT uq_audit_events_id UNIQUE (id)
);
INSERT INTO "audit_events" VALUES(1,'01a214ce-0ab8-737d-b17d-ac406c4e533c','2026-11-25T22:22:57.194707Z','user','created','cli:root','user:a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','','','{"role":"client"}',1,'0000000000000000000000000000000000000000000000000000000000000000','d217ec2b170db111be7c987a852b0c298e5f79ee5d53eb4e859ea5551895cfd7');
INSERT INTO "audit_events" VALUES(2,'01a214ce-1f7b-7612-8d30-57e7acc7ba47','2026-11-25T22:23:02.509538Z','user','created','cli:root','user:2f8d6e34-3bce-4007-b990-5a95841596d4','','','{"role":"client"}',1,'d217ec2b170db111be7c987a852b0c298e5f79ee5d53eb4e859ea5551895cfd7','996914b00a9df7e691d2c592ad23e081f618cb5165346c5495836c2dc3f0cf9a');
INSERT INTO "audit_events" VALUES(3,'01a214ce-3078-73d2-a499-e1df87222237','2026-11-25T22:23:06.869552Z','token','issued','a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','','127.0.0.1','1c95eeb949c946d59819345fdb599fb1','{"grant":"password","session":"a9e6e71d-ab72-4614-921f-ba7c78bc83d5"}',1,'996914b00a9df7e691d2c592ad23e081f618cb5165346c5495836c2dc3f0cf9a','d35754407fc9aa964cbc53900ad82fa8f96f3b991762e60d77d3c5ed3fa1cbfa');
INSERT INTO "audit_events" VALUES(4,'01a214ce-30da-773e-b41f-ca59f1c79a6a','2026-11-25T22:23:06.969726Z','token','issued','2f8d6e34-3bce-4007-b990-5a95841596d4','','127.0.0.1','e698278bed0b4a679ede68ef0ccb18a2','{"grant":"password","session":"0e123084-a694-44b2-ace7-13d974398697"}',1,'d35754407fc9aa964cbc53900ad82fa8f96f3b991762e60d77d3c5ed3fa1cbfa','c754f2cd1edabfb3a10671da6aa65f1fcd4a63339a124ae6a65ea822ddf514bc');
INSERT INTO "audit_events" VALUES(5,'01a214ce-3297-71dc-9638-83315e7ed6c4','2026-11-25T22:23:07.412882Z','key','created','a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','key:c9314ce09e8e966e','127.0.0.1','98c536eba99640d7b870c5ff214b1846','{}',1,'c754f2cd1edabfb3a10671da6aa65f1fcd4a63339a124ae6a65ea822ddf514bc','9e046eb5c8b8b4e29829e378b8328827382153b33a63f85b61ed463dbc59bf51');
INSERT INTO "audit_events" VALUES(6,'01a214ce-332a-7563-bcbe-9ab5fffd5b7d','2026-11-25T22:23:07.318739Z','token','refused','','','127.0.0.1','52f6edd94a034ba1b8c4d766e34b3faf','{"code":"bad_credentials"}',1,'9e046eb5c8b8b4e29829e378b8328827382153b33a63f85b61ed463dbc59bf51','d52e303c02688f5724166ba1754981526551b30bf398c9c735f1cad79b205607');
INSERT INTO "audit_events" VALUES(7,'01a214ce-4682-76d5-b499-e970958ce98b','2026-11-25T22:23:12.506108Z','token','issued','a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','','127.0.0.1','c5197244b4b6497b999f0d9bfa24de4f','{"grant":"password","session":"641a56df-77bd-4336-8976-6f1d95eb4b01"}',1,'d52e303c02688f5724166ba1754981526551b30bf398c9c735f1cad79b205607','307b273daf3d6319f8e7d1a700a080c9ebe20b5bf45c0386c54520139d05f064');
INSERT INTO "audit_events" VALUES(8,'01a214ce-503b-7159-b594-3576179a3db6','2026-11-25T22:23:15.000052Z','ledger','erased','cli:root','user:2f8d6e34-3bce-4007-b990-5a95841596d4','','','{"payloads":"1"}',1,'307b273daf3d6319f8e7d1a700a080c9ebe20b5bf45c0386c54520139d05f064','0e4409f9cc630383336b1b29b5e81a6611571558408bb32f45e81537d0b6a55a');
INSERT INTO "audit_events" VALUES(9,'01a214ce-5cc8-763e-9273-e76bb92f617e','2026-11-25T22:23:18.206484Z','ledger','exported','cli:root','','','','{"format":"atalaya-ledger-1"}',1,'0e4409f9cc630383336b1b29b5e81a6611571558408bb32f45e81537d0b6a55a','6620525b53d763c8bd3249c2340cc904cb4d1ea1c4a7a7303987feac5faeeead');
CREATE TABLE audit_head (
	id INTEGER NOT NULL, 
	seq BIGINT NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	pruned_seq BIGINT NOT NULL, 
	pruned_hash VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_audit_head PRIMARY KEY (id)
);
INSERT INTO "audit_head" VALUES(1,9,'6620525b53d763c8bd3249c2340cc904cb4d1ea1c4a7a7303987feac5faeeead',0,'0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE audit_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT audit_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "audit_version" VALUES('0002');
CREATE TABLE change_counter (
	id INTEGER NOT NULL, 
	seq BIGINT NOT NULL, 
	CONSTRAINT pk_change_counter PRIMARY KEY (id)
);
INSERT INTO "change_counter" VALUES(1,0);
CREATE TABLE changes (
	seq BIGINT NOT NULL, 
	target VARCHAR(128) NOT NULL, 
	revoked INTEGER NOT NULL, 
	expires_at DATETIME NOT NULL, 
	CONSTRAINT pk_changes PRIMARY KEY (seq)
);
CREATE TABLE clients (
	id VARCHAR(36) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	secret_digest VARCHAR(64) NOT NULL, 
	scopes VARCHAR(255) NOT NULL, 
	created_at DATETIME NOT NULL, 
	disabled_at DATETIME, 
	CONSTRAINT pk_clients PRIMARY KEY (id), 
	CONSTRAINT uq_clients_name UNIQUE (name)
);
CREATE TABLE known_addresses (
	user_id VARCHAR(36) NOT NULL, 
	address VARCHAR(64) NOT NULL, 
	last_at DATETIME NOT NULL, 
	CONSTRAINT pk_known_addresses PRIMARY KEY (user_id, address), 
	CONSTRAINT fk_known_addresses_user_id_users FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);
INSERT INTO "known_addresses" VALUES('a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','127.0.0.1','2026-11-25 22:23:12.481720');
INSERT INTO "known_addresses" VALUES('2f8d6e34-3bce-4007-b990-5a95841596d4','127.0.0.1','2026-11-25 22:23:06.958000');
CREATE TABLE ledger_checkpoints (
	number BIGINT NOT NULL, 
	at VARCHAR(27) NOT NULL, 
	heads TEXT NOT NULL, 
	previous VARCHAR(64) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	"key" VARCHAR(16) NOT NULL, 
	signature VARCHAR(88) NOT NULL, 
	CONSTRAINT pk_ledger_checkpoints PRIMARY KEY (number)
);
INSERT INTO "ledger_checkpoints" VALUES(1,'2026-11-25T22:23:06.560493Z','01a214ce-2f3b-728c-ab8d-1d94c948505b 0 0000000000000000000000000000000000000000000000000000000000000000','0000000000000000000000000000000000000000000000000000000000000000','6e16941408f6478bb3eb87c37ee257102ed12084479cbcac98882c663099d01f','5288868ca4c6c7f7','h12HqaPXyQ1TWyWwkmfbLSam6Dt1KxA1aGroOS0u10IT/TmBnrtR0ROUI/KY9nCJ/mx+VecboZ1qZSaJiigXDA==');
INSERT INTO "ledger_checkpoints" VALUES(2,'2026-11-25T22:23:08.601465Z','01a214ce-2f3b-728c-ab8d-1d94c948505b 4 ff7f18000e260d35e9bda8f1c91837bbc38f8b5654d0e9af90fbc4a048278427','6e16941408f6478bb3eb87c37ee257102ed12084479cbcac98882c663099d01f','99c1abbba95376197d8b170da92bd269e74220b36b5bb4ef63745c1a882d3136','5288868ca4c6c7f7','whyv1O8TyQ9zuOW2RGW3A0oQtxfuKc7597WDW7jMlp6zYcqlYYLF1QziuKc6i/n+QX82Abf9qIcrlObI8YtICg==');
INSERT INTO "ledger_checkpoints" VALUES(3,'2026-11-25T22:23:12.150207Z','01a214ce-450c-701b-a89d-031242adc381 0 0000000000000000000000000000000000000000000000000000000000000000','99c1abbba95376197d8b170da92bd269e74220b36b5bb4ef63745c1a882d3136','3a7b33e66e7f0e78bed02e72e848c782133603378371fcfc7ef0e15748632d90','5288868ca4c6c7f7','ZWOT8uLv8JR1r56lfTW9q1hrTAzPPxK1uMBOn9XgOt1VNiYt9/Yd6TME38hPOTObh19W2WRqQomZ+yhFCqa+BA==');
CREATE TABLE ledger_entries (
	writer VARCHAR(36) NOT NULL, 
	seq BIGINT NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	at VARCHAR(27) NOT NULL, 
	commitment VARCHAR(64) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_ledger_entries PRIMARY KEY (writer, seq), 
	CONSTRAINT uq_ledger_entries_id UNIQUE (id)
);
INSERT INTO "ledger_entries" VALUES('01a214ce-2f3b-728c-ab8d-1d94c948505b',1,'01a214ce-3129-73e8-a6a5-d72143e13ae5','2026-11-25T22:23:07.049446Z','0927e07b1b5a360eeec577d264c3fba996cd22eeda7e1c163ce2e7b7c1b1dfa0','ece8238e9b4b9d194a5a2843e44940b916aad4bc1634e8c8621df68ae60b44ac');
INSERT INTO "ledger_entries" VALUES('01a214ce-2f3b-728c-ab8d-1d94c948505b',2,'01a214ce-317c-72ae-83b1-ab1e7c0a4e71','2026-11-25T22:23:07.132258Z','28709bfbaedcd43c804e7c692d9de0447f95b099dc246a53a4e45dbfe9b77545','5215ee90209c0cf5dff5e6e11bb3911ef0a2c6e2a1fe5265a712410e40f0df61');
INSERT INTO "ledger_entries" VALUES('01a214ce-2f3b-728c-ab8d-1d94c948505b',3,'01a214ce-31c4-72fb-954b-30807225145f','2026-11-25T22:23:07.204969Z','d9661024e85259482c61e0a62730847c65db6474d7ee7350c69b3334ee06b488','3bbc703e23cca1843c7cc80943299481515d60cd2cf894aacff998da8bd4ad4f');
INSERT INTO "ledger_entries" VALUES('01a214ce-2f3b-728c-ab8d-1d94c948505b',4,'01a214ce-32ac-7035-8e26-b31929ed491b','2026-11-25T22:23:07.436952Z','aaddcb2385272c0a9a4cab0726b3e34c3b38cb2b3284e1a9cacc3ad315e479f8','ff7f18000e260d35e9bda8f1c91837bbc38f8b5654d0e9af90fbc4a048278427');
INSERT INTO "ledger_entries" VALUES('01a214ce-450c-701b-a89d-031242adc381',1,'01a214ce-46c6-716b-a7d6-2cd52157618a','2026-11-25T22:23:12.582098Z','827df720793daa140f3bd44cc4ed2da697179b7046750032dce6c6e270da16db','7c7f616c16be445724d95ae74cfd70c7a96a440db9ae32a1f481302f8438ca41');
CREATE TABLE ledger_erasures (
	writer VARCHAR(36) NOT NULL, 
	seq BIGINT NOT NULL, 
	at VARCHAR(27) NOT NULL, 
	"key" VARCHAR(16) NOT NULL, 
	signature VARCHAR(88) NOT NULL, 
	CONSTRAINT pk_ledger_erasures PRIMARY KEY (writer, seq)
);
INSERT INTO "ledger_erasures" VALUES('01a214ce-2f3b-728c-ab8d-1d94c948505b',3,'2026-11-25T22:23:14.877493Z','5288868ca4c6c7f7','RRbI9fm1pXfRSQZHlzu0MPKStVLa9uhefdzzlmAUk71mr97IWVT8cbUPDgIeUPS0u1rf2a1gFszfIaF7dRNwBA==');
CREATE TABLE ledger_heads (
	writer VARCHAR(36) NOT NULL, 
	seq BIGINT NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	checkpoint BIGINT NOT NULL, 
	claimed BIGINT NOT NULL, 
	"key" VARCHAR(16) NOT NULL, 
	signature VARCHAR(88) NOT NULL, 
	CONSTRAINT pk_ledger_heads PRIMARY KEY (writer)
);
INSERT INTO "ledger_heads" VALUES('01a214ce-2f3b-728c-ab8d-1d94c948505b',4,'ff7f18000e260d35e9bda8f1c91837bbc38f8b5654d0e9af90fbc4a048278427',1,4,'5288868ca4c6c7f7','S9Ky+Ob5YCQ0od3wB1HQZRGKZ4dDZo/xYW1OUKTK6DGj9LdD4+cAwt2Wg83St2ADRHSuPmTvR+rl9bW1TseGCQ==');
INSERT INTO "ledger_heads" VALUES('01a214ce-450c-701b-a89d-031242adc381',1,'7c7f616c16be445724d95ae74cfd70c7a96a440db9ae32a1f481302f8438ca41',3,0,'5288868ca4c6c7f7','yezSZwoatszt5gtopvdgyfrprMRSRqewa+QueN2QEohxrP8k0WZ65ABK+MnCBj5W+Okc1Ua1U8WXGn0yFtR5Bg==');
CREATE TABLE ledger_payloads (
	writer VARCHAR(36) NOT NULL, 
	seq BIGINT NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	principal VARCHAR(320) NOT NULL, 
	model VARCHAR(320) NOT NULL, 
	status INTEGER NOT NULL, 
	salt VARCHAR(64) NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_ledger_payloads PRIMARY KEY (writer, seq)
);
INSERT INTO "ledger_payloads" VALUES('01a214ce-2f3b-728c-ab8d-1d94c948505b',1,'01a214ce-3129-73e8-a6a5-d72143e13ae5','a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','efficientnetb0-v1.0',200,'f5f9482a5d64c3114cdb1b621caa1ec36055c8dc3b0ef242ce97fb18970d6444','{"at":"2026-11-25T22:23:07.049446Z","code":null,"count":1,"id":"01a214ce-3129-73e8-a6a5-d72143e13ae5","image":{"bytes":39458,"format":"JPEG","height":256,"sha256":"fc6d1c3cd4a80357e17942a1a3bb1951cb07f0578a1c086818409a433faf622d","width":256},"key":null,"model":{"backend":"onnx","digest":"b90215f74b186a7a1a814c331e30dd1dfb77024a87fc24f0b81418e087f01c53","name":"efficientnetb0","version":"1.0"},"output":{"confidence":0.27429038286209106,"index":0,"label":"agricultural","probabilities":{"agricultural":0.27429038286209106,"airplane":0.013873286545276642,"baseballdiamond":0.012520997785031796,"beach":0.026109647005796432,"buildings":0.015350603498518467,"chaparral":0.02137838490307331,"denseresidential":0.025706620886921883,"forest":0.21930646896362305,"freeway":0.016147304326295853,"golfcourse":0.022930432111024857,"harbor":0.052810151129961014,"intersection":0.015942659229040146,"mediumresidential":0.03644435852766037,"mobilehomepark":0.08870670944452286,"overpass":0.012452851049602032,"parkinglot":0.044126491993665695,"river":0.021321995183825493,"runway":0.050543032586574554,"sparseresidential":0.01074161659926176,"storagetanks":0.008834835141897202,"tenniscourt":0.010461199097335339}},"preprocessing":"2","principal":"a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3","request_id":"9526221385a642a8b219029915acb3c4","route":"/v1/predictions","runtime":{"machine":"x86_64","numpy":"2.4.6","onnxruntime":"1.32.0","pillow":"13.0.0","processor":"AMD EPYC"},"status":200,"timing_us":{"decode":4187,"infer":26321,"queue":109},"v":1}');
INSERT INTO "ledger_payloads" VALUES('01a214ce-2f3b-728c-ab8d-1d94c948505b',2,'01a214ce-317c-72ae-83b1-ab1e7c0a4e71','a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','efficientnetb0-v1.0',200,'e34c32e38509324708964572fd0d56819c04b65c25468d892cd3cecfe6fc8ea8','{"at":"2026-11-25T22:23:07.132258Z","code":null,"count":1,"id":"01a214ce-317c-72ae-83b1-ab1e7c0a4e71","image":{"bytes":82999,"format":"JPEG","height":400,"sha256":"8b716c1a1c2a9361ea5132b84bd3d1ae3850cd35a7f2a34b0e393a6b5bae798c","width":400},"key":null,"model":{"backend":"onnx","digest":"b90215f74b186a7a1a814c331e30dd1dfb77024a87fc24f0b81418e087f01c53","name":"efficientnetb0","version":"1.0"},"output":{"confidence":0.8235400915145874,"index":7,"label":"forest","probabilities":{"agricultural":0.039916545152664185,"airplane":0.004555173683911562,"baseballdiamond":0.003115497762337327,"beach":0.011957893148064613,"buildings":0.0053779687732458115,"chaparral":0.011380677111446857,"denseresidential":0.008001473732292652,"forest":0.8235400915145874,"freeway":0.003241692902520299,"golfcourse":0.004607462324202061,"harbor":0.003032422624528408,"intersection":0.006182644050568342,"mediumresidential":0.02030007541179657,"mobilehomepark":0.007553650997579098,"overpass":0.004539496265351772,"parkinglot":0.013589305803179741,"river":0.015108706429600716,"runway":0.003836649237200618,"sparseresidential":0.00462015625089407,"storagetanks":0.0032475364860147238,"tenniscourt":0.0022949017584323883}},"preprocessing":"2","principal":"a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3","request_id":"d6b883b82e024a05817e6bf8617cf3d9","route":"/v1/predictions","runtime":{"machine":"x86_64","numpy":"2.4.6","onnxruntime":"1.32.0","pillow":"13.0.0","processor":"AMD EPYC"},"status":200,"timing_us":{"decode":4418,"infer":31810,"queue":151},"v":1}');
INSERT INTO "ledger_payloads" VALUES('01a214ce-2f3b-728c-ab8d-1d94c948505b',4,'01a214ce-32ac-7035-8e26-b31929ed491b','a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','',415,'09d90a0af036a9e2aeeffc7222adef817041ff5671b7fa5cbfb07b72ebda94d4','{"at":"2026-11-25T22:23:07.436952Z","code":"unsupported_image","count":1,"id":"01a214ce-32ac-7035-8e26-b31929ed491b","image":null,"key":null,"model":null,"output":null,"preprocessing":null,"principal":"a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3","request_id":"4bacf1bc8ef148aaad13eb8a42149a64","route":"/v1/predictions","runtime":null,"status":415,"timing_us":{},"v":1}');
INSERT INTO "ledger_payloads" VALUES('01a214ce-450c-701b-a89d-031242adc381',1,'01a214ce-46c6-716b-a7d6-2cd52157618a','a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','stub-v1.0',200,'cc99d43a30d072268a14b2ccc509979d88b90453c1e8be18fa49e54fd21c90ba','{"at":"2026-11-25T22:23:12.582098Z","code":null,"count":1,"id":"01a214ce-46c6-716b-a7d6-2cd52157618a","image":{"bytes":39458,"format":"JPEG","height":256,"sha256":"fc6d1c3cd4a80357e17942a1a3bb1951cb07f0578a1c086818409a433faf622d","width":256},"key":null,"model":{"backend":"stub","digest":"b32cea9406c878b22c47a0d62b390f42e94e680bff609e73abb86700dd651275","name":"stub","version":"1.0"},"output":{"confidence":0.3103317618370056,"index":5,"label":"chaparral","probabilities":{"agricultural":0.000103346785181202,"airplane":0.025841934606432915,"baseballdiamond":0.001378432265482843,"beach":6.068286893423647e-05,"buildings":0.0020286294165998697,"chaparral":0.3103317618370056,"denseresidential":0.0014946518931537867,"forest":0.009532204829156399,"freeway":0.0002719745971262455,"golfcourse":0.00013496520114131272,"harbor":0.10440612584352493,"intersection":0.004278526175767183,"mediumresidential":0.0004007123352494091,"mobilehomepark":0.028811870142817497,"overpass":3.570901753846556e-05,"parkinglot":0.0004956009215675294,"river":0.013752798549830914,"runway":0.21011792123317719,"sparseresidential":0.0011035905918106437,"storagetanks":0.12033658474683762,"tenniscourt":0.16508199274539948}},"preprocessing":"2","principal":"a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3","request_id":"600704f24c3d41149e654ed9e18a0a9a","route":"/v1/predictions","runtime":{"machine":"x86_64","numpy":"2.4.6","onnxruntime":"1.32.0","pillow":"13.0.0","processor":"AMD EPYC"},"status":200,"timing_us":{"decode":3464,"infer":1497,"queue":135},"v":1}');
CREATE TABLE ledger_stumps (
	writer VARCHAR(36) NOT NULL, 
	seq BIGINT NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	at VARCHAR(27) NOT NULL, 
	"key" VARCHAR(16) NOT NULL, 
	signature VARCHAR(88) NOT NULL, 
	CONSTRAINT pk_ledger_stumps PRIMARY KEY (writer)
);
CREATE TABLE login_failures (
	"key" VARCHAR(64) NOT NULL, 
	failures INTEGER NOT NULL, 
	last_at DATETIME NOT NULL, 
	CONSTRAINT pk_login_failures PRIMARY KEY ("key")
);
CREATE TABLE refresh_tokens (
	digest VARCHAR(64) NOT NULL, 
	session_id VARCHAR(36) NOT NULL, 
	created_at DATETIME NOT NULL, 
	used_at DATETIME, 
	CONSTRAINT pk_refresh_tokens PRIMARY KEY (digest), 
	CONSTRAINT fk_refresh_tokens_session_id_sessions FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "refresh_tokens" VALUES('afda513773603ea2634f6c51bc327a123a061f46c3262772acdc48c11f2e93bd','a9e6e71d-ab72-4614-921f-ba7c78bc83d5','2026-11-25 22:23:06.860677',NULL);
INSERT INTO "refresh_tokens" VALUES('caa77c0d85e0380051fbfdba40c9a434670ee404bb799edcf68f91a95e14abbf','0e123084-a694-44b2-ace7-13d974398697','2026-11-25 22:23:06.964085',NULL);
INSERT INTO "refresh_tokens" VALUES('1fc50d14dd27f25bc974777cc7f2253fbace92549c910363b52980051486f8f6','641a56df-77bd-4336-8976-6f1d95eb4b01','2026-11-25 22:23:12.491417',NULL);
CREATE TABLE sessions (
	id VARCHAR(36) NOT NULL, 
	user_id VARCHAR(36) NOT NULL, 
	client_id VARCHAR(36), 
	scopes VARCHAR(255) NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME NOT NULL, 
	revoked_at DATETIME, 
	CONSTRAINT pk_sessions PRIMARY KEY (id), 
	CONSTRAINT fk_sessions_user_id_users FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);
INSERT INTO "sessions" VALUES('a9e6e71d-ab72-4614-921f-ba7c78bc83d5','a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3',NULL,'keys:write predict predictions:read','2026-11-25 22:23:06.860677','2026-12-25 22:23:06.860677',NULL);
INSERT INTO "sessions" VALUES('0e123084-a694-44b2-ace7-13d974398697','2f8d6e34-3bce-4007-b990-5a95841596d4',NULL,'keys:write predict predictions:read','2026-11-25 22:23:06.964085','2026-12-25 22:23:06.964085',NULL);
INSERT INTO "sessions" VALUES('641a56df-77bd-4336-8976-6f1d95eb4b01','a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3',NULL,'keys:write predict predictions:read','2026-11-25 22:23:12.491417','2026-12-25 22:23:12.491417',NULL);
CREATE TABLE usage (
	owner VARCHAR(320) NOT NULL, 
	month VARCHAR(7) NOT NULL, 
	requests BIGINT NOT NULL, 
	pixels BIGINT NOT NULL, 
	CONSTRAINT pk_usage PRIMARY KEY (owner, month)
);
INSERT INTO "usage" VALUES('user:a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','2026-11',3,291072);
INSERT INTO "usage" VALUES('user:2f8d6e34-3bce-4007-b990-5a95841596d4','2026-11',1,65536);
CREATE TABLE users (
	id VARCHAR(36) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	password_hash VARCHAR(255) NOT NULL, 
	created_at DATETIME NOT NULL, 
	disabled_at DATETIME, totp_secret VARCHAR(255), totp_confirmed_at DATETIME, totp_last_step BIGINT, monthly_requests BIGINT, monthly_megapixels BIGINT, 
	CONSTRAINT pk_users PRIMARY KEY (id), 
	CONSTRAINT uq_users_name UNIQUE (name)
);
INSERT INTO "users" VALUES('a6dc0dec-b2e0-4e2a-b6c8-c837539aa0d3','ana','client','$argon2id$v=19$m=19456,t=2,p=1$fE/Jea81ppQyJgRAiJGyNg$SYToC48R+KHoJ6EQsXM56M9s1Pqrj4zSlRgagfRkQRc','2026-11-25 22:22:56.917497',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "users" VALUES('2f8d6e34-3bce-4007-b990-5a95841596d4','bob','client','$argon2id$v=19$m=19456,t=2,p=1$rfX+v/feW0tJyTkHQAjhfA$g88RMOmNLBjvnz4z82BNLqpiLbeFsnuKRmbhXH78XD0','2026-11-25 22:23:02.213780',NULL,NULL,NULL,NULL,NULL,NULL);
CREATE INDEX ix_sessions_user_id ON sessions (user_id);
CREATE INDEX ix_refresh_tokens_session_id ON refresh_tokens (session_id);
CREATE INDEX ix_api_keys_user_id ON api_keys (user_id);
CREATE INDEX ix_audit_events_at ON audit_events (at);
CREATE INDEX ix_audit_events_actor ON audit_events (actor);
CREATE INDEX ix_ledger_entries_at ON ledger_entries (at);
CREATE INDEX ix_ledger_payloads_principal_id ON ledger_payloads (principal, id);
COMMIT;
